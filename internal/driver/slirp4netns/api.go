package slirp4netns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// apiClient uses slirp4netns's API socket: each connection carries one request
// and its answer, in JSON; shutting down the sending direction ends the request
// (slirp4netns(1), "API SOCKET").
type apiClient struct{ path string }

type apiRequest struct {
	Execute   string `json:"execute"`
	Arguments any    `json:"arguments,omitempty"`
}

type hostForward struct {
	Proto     string     `json:"proto"` // tcp or udp
	HostAddr  netip.Addr `json:"host_addr"`
	HostPort  int        `json:"host_port"`
	GuestAddr netip.Addr `json:"guest_addr"`
	GuestPort int        `json:"guest_port"`
}

type forwardID struct {
	ID int `json:"id"`
}

// maxAnswer bounds an answer, in bytes. The answers to these requests are short.
const maxAnswer = 64 << 10

// addForward publishes a port and returns its ID.
func (c apiClient) addForward(ctx context.Context, f hostForward) (int, error) {
	answer, err := c.call(ctx, "add_hostfwd", f)
	if err != nil {
		return 0, err
	}
	return decodeID(answer)
}

// decodeID decodes the answer to add_hostfwd.
func decodeID(answer []byte) (int, error) {
	var id *forwardID
	if err := decodeReturn(answer, &id); err != nil {
		return 0, fmt.Errorf("slirp4netns: add_hostfwd: %w", err)
	}
	if id == nil {
		return 0, errors.New("slirp4netns: add_hostfwd: the answer has no id")
	}
	return id.ID, nil
}

// removeForward closes a published port.
func (c apiClient) removeForward(ctx context.Context, id int) error {
	answer, err := c.call(ctx, "remove_hostfwd", forwardID{id})
	if err != nil {
		return err
	}
	if err := decodeReturn(answer, nil); err != nil {
		return fmt.Errorf("slirp4netns: remove_hostfwd %d: %w", id, err)
	}
	return nil
}

// decodeReturn decodes an answer: {"return": ...} or {"error": {"desc": ...}}.
func decodeReturn(answer []byte, result any) error {
	var a struct {
		Return json.RawMessage `json:"return"`
		Error  *struct {
			Desc string `json:"desc"`
		} `json:"error"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return fmt.Errorf("malformed answer %.200q: %w", answer, err)
	}
	if a.Error != nil {
		return errors.New(a.Error.Desc)
	}
	if result == nil {
		return nil
	}
	if a.Return == nil {
		return fmt.Errorf("malformed answer %.200q", answer)
	}
	return json.Unmarshal(a.Return, result)
}

func (c apiClient) call(ctx context.Context, execute string, arguments any) ([]byte, error) {
	answer, err := c.exchange(ctx, apiRequest{execute, arguments})
	if err != nil {
		return nil, fmt.Errorf("slirp4netns: %s: %w", execute, err)
	}
	return answer, nil
}

func (c apiClient) exchange(ctx context.Context, req apiRequest) ([]byte, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.path)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(0, 0)) })
	defer stop()
	if _, err := conn.Write(body); err != nil {
		return nil, err
	}
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(conn, maxAnswer))
}
