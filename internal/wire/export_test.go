package wire

import "time"

// SetPatience is for tests that do not have a minute.
func (c *Client) SetPatience(d time.Duration) { c.patience = d }
