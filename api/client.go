package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
)

// maxResponse bounds what the client reads of a response. A list of all ports
// of all protocols stays below it.
const maxResponse = 128 << 20

// Client calls the REST API of a launcher over its Unix socket. It may be used
// by several goroutines at once.
//
// Every call ends when its context does. If the server refuses a call, the
// error is an *Error; all other errors are those of the connection.
type Client struct {
	http *http.Client
}

// Error is a refusal by the server.
type Error struct {
	// StatusCode is the HTTP status of the response, e.g. 400.
	StatusCode int
	// Message is the reason that the server gave.
	Message string
}

func (e *Error) Error() string { return e.Message }

// NewClient returns a client for the socket at the given path (api.sock in the
// launcher's state directory). It connects at the first call.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &Client{http: &http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// Close closes idle connections. The client remains usable.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Info describes the launcher and its drivers.
func (c *Client) Info(ctx context.Context) (*Info, error) {
	var info Info
	if err := c.call(ctx, http.MethodGet, "/v1/info", nil, &info); err != nil {
		return nil, err
	}
	return &info, nil
}

// ListPorts lists the published ports in the order of their IDs. It fails
// without a port driver.
func (c *Client) ListPorts(ctx context.Context) ([]PortStatus, error) {
	return c.list(ctx, "/v1/ports")
}

// ListPortsDetails is like ListPorts, and sets PortStatus.Details if the server
// knows API version 1.2.0 and the port driver counts.
func (c *Client) ListPortsDetails(ctx context.Context) ([]PortStatus, error) {
	return c.list(ctx, "/v1/ports?details=true")
}

func (c *Client) list(ctx context.Context, path string) ([]PortStatus, error) {
	var ports []PortStatus
	err := c.call(ctx, http.MethodGet, path, nil, &ports)
	return ports, err
}

// AddPort publishes a port, which is open when AddPort returns. If ctx ends
// first, the server does not publish the port, or closes it again.
func (c *Client) AddPort(ctx context.Context, spec PortSpec) (*PortStatus, error) {
	var status PortStatus
	if err := c.call(ctx, http.MethodPost, "/v1/ports", spec, &status); err != nil {
		return nil, err
	}
	return &status, nil
}

// RemovePort unpublishes the port with the given ID. When it returns nil, the
// port and its connections are closed, and the same port can be added again.
func (c *Client) RemovePort(ctx context.Context, id int) error {
	return c.call(ctx, http.MethodDelete, "/v1/ports/"+strconv.Itoa(id), nil, nil)
}

// call makes one request. With a nil body it sends none; with a nil result it
// ignores the response body.
func (c *Client) call(ctx context.Context, method, path string, body, result any) error {
	req, err := newRequest(ctx, method, path, body)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse))
	if err != nil {
		return fmt.Errorf("reading the response to %s %s: %w", method, path, err)
	}
	if resp.StatusCode/100 != 2 {
		return refusal(resp.StatusCode, data)
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(data, result); err != nil {
		return fmt.Errorf("decoding the response to %s %s: %w", method, path, err)
	}
	return nil
}

func newRequest(ctx context.Context, method, path string, body any) (*http.Request, error) {
	// The host appears only in the Host header: the connection is to the socket.
	url := "http://rootlesskit" + path
	if body == nil {
		return http.NewRequestWithContext(ctx, method, url, nil)
	}
	data, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encoding the body of %s %s: %w", method, path, err)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	return req, nil
}

// refusal decodes {"message":"..."}, which other programs that answer on the
// socket may not send.
func refusal(status int, body []byte) *Error {
	var e struct {
		Message string `json:"message"`
	}
	if err := json.Unmarshal(body, &e); err != nil || e.Message == "" {
		e.Message = fmt.Sprintf("unexpected HTTP status %s, body=%q", http.StatusText(status), body)
	}
	return &Error{StatusCode: status, Message: e.Message}
}
