package wire

import "time"

// SetPatience is for tests that do not have a minute.
func (c *Client) SetPatience(d time.Duration) { c.patience = d }

// SendEmpty sends a packet of no bytes, which is received like an end.
func (c *Conn) SendEmpty() error {
	_, _, err := c.uc.WriteMsgUnix(nil, nil, nil)
	return err
}
