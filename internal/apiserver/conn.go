package apiserver

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// conn is a client's connection, for requests one after the other (RFC 9112).
//
// A request is read whole, body included, which is short, before it is handled.
// So whatever the connection says while the handler works is its end, or the next
// request: a goroutine waits for that, and cancels the request's context where the
// client has hung up.
type conn struct {
	net.Conn
	server  *Server
	handler http.Handler
	in      *bufio.Reader
	limit   *io.LimitedReader // below in
	once    bool              // for one request, soon: see reserve

	// idle says that no request has begun; ending that none is to begin.
	idle, ending atomic.Bool
}

// longAgo as a deadline ends a read that is under way.
var longAgo = time.Unix(1, 0)

// finish ends the connection: now where it is idle, else after the response.
func (c *conn) finish() {
	c.ending.Store(true)
	if c.idle.Load() {
		_ = c.SetReadDeadline(longAgo)
	}
}

// serve answers requests until the client or the server has enough.
func (c *conn) serve(ctx context.Context) {
	defer c.recover()
	c.limit = &io.LimitedReader{R: c.Conn}
	c.in = bufio.NewReader(c.limit)
	for c.awaitRequest() {
		req, err := c.readRequest(ctx)
		if err != nil {
			c.refuse(err)
			return
		}
		if !c.answer(req) {
			return
		}
	}
}

// recover keeps a handler that panics from ending the run.
func (c *conn) recover() {
	if reason := recover(); reason != nil {
		c.server.cfg.Log.Error("an API request failed", "panic", reason, "stack", string(debug.Stack()))
	}
}

// awaitRequest reports whether a request has begun.
func (c *conn) awaitRequest() bool {
	c.limit.N = maxHeader
	idle := c.server.limits.idle
	if c.once {
		idle = c.server.limits.read
	}
	_ = c.SetReadDeadline(time.Now().Add(idle))
	c.idle.Store(true)
	if c.ending.Load() { // finish did not see it idle
		return false
	}
	_, err := c.in.Peek(1)
	c.idle.Store(false)
	return err == nil
}

// httpError is a request that is answered before it reaches a handler.
type httpError struct {
	status int
	reason error
}

func (e *httpError) Error() string { return e.reason.Error() }

// readRequest reads a request and its body.
func (c *conn) readRequest(ctx context.Context) (*http.Request, error) {
	_ = c.SetReadDeadline(time.Now().Add(c.server.limits.read))
	req, err := http.ReadRequest(c.in)
	switch {
	case err != nil && c.limit.N <= 0:
		return nil, &httpError{http.StatusRequestHeaderFieldsTooLarge, fmt.Errorf("the header is longer than %d bytes", maxHeader)}
	case err != nil:
		return nil, err
	case req.ProtoMajor != 1:
		return nil, &httpError{http.StatusHTTPVersionNotSupported, fmt.Errorf("%s is not supported, only HTTP/1.1 is", req.Proto)}
	case req.ProtoAtLeast(1, 1) && req.Host == "":
		return nil, errors.New("the header Host is missing")
	}
	c.limit.N = math.MaxInt64
	if strings.EqualFold(req.Header.Get("Expect"), "100-continue") {
		if err := c.write([]byte("HTTP/1.1 100 Continue\r\n\r\n")); err != nil {
			return nil, err
		}
	}
	body, err := io.ReadAll(io.LimitReader(req.Body, maxBody+1))
	if err != nil {
		return nil, fmt.Errorf("reading the body: %w", err)
	}
	if len(body) > maxBody { // the handler says so, the rest is not read
		req.Close = true
	}
	req.Body = io.NopCloser(bytes.NewReader(body))
	return req.WithContext(ctx), nil
}

// refuse answers what is no request, unless the client is gone or took too long.
func (c *conn) refuse(err error) {
	status := http.StatusBadRequest
	var known *httpError
	var failed net.Error
	switch {
	case errors.As(err, &known):
		status = known.status
	case errors.As(err, &failed), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return
	}
	r := newResponse()
	c.server.sendError(r, status, err)
	if c.write(r.encode("GET", 1, true)) == nil {
		c.linger()
	}
}

// answer handles a request and reports whether there may be another.
func (c *conn) answer(req *http.Request) bool {
	ctx, cancel := context.WithCancel(req.Context())
	defer cancel()
	hungUp := make(chan struct{})
	_ = c.SetReadDeadline(time.Time{})
	go func() {
		defer close(hungUp)
		if _, err := c.in.Peek(1); err != nil {
			cancel()
		}
	}()
	r := newResponse()
	c.handler.ServeHTTP(r, req.WithContext(ctx))
	_ = c.SetReadDeadline(longAgo)
	<-hungUp

	last := c.once || req.Close || c.ending.Load() || r.header.Get("Connection") == "close" || !req.ProtoAtLeast(1, 1)
	if err := c.write(r.encode(req.Method, req.ProtoMinor, last)); err != nil {
		c.server.cfg.Log.Debug("sending an API response", "error", err)
		return false
	}
	if last {
		c.linger()
	}
	return !last
}

func (c *conn) write(b []byte) error {
	_ = c.SetWriteDeadline(time.Now().Add(c.server.limits.write))
	_, err := c.Write(b)
	return err
}

// A client may lose a response that it has not read when the connection is
// closed with unread bytes of its own (ECONNRESET); so these are read, for a while.
const (
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 1 << 20
)

func (c *conn) linger() {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_ = c.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, c.Conn, lingerBytes)
}

// response is an http.ResponseWriter that keeps the response, which is short,
// until it is complete.
type response struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func newResponse() *response { return &response{header: http.Header{}} }

func (r *response) Header() http.Header { return r.header }

func (r *response) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

func (r *response) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.body.Write(b)
}

// encode returns the response as it goes over the wire (RFC 9112).
func (r *response) encode(method string, minor int, last bool) []byte {
	r.WriteHeader(http.StatusOK)
	r.header.Set("Content-Length", strconv.Itoa(r.body.Len()))
	r.header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	if last {
		r.header.Set("Connection", "close")
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.%d %03d %s\r\n", minor, r.status, http.StatusText(r.status))
	_ = r.header.Write(&b) // a buffer does not fail
	b.WriteString("\r\n")
	if method != http.MethodHead {
		b.Write(r.body.Bytes())
	}
	return b.Bytes()
}
