// Package apiserver serves REST v1, as api/openapi.yaml describes it, on a Unix
// socket.
//
// Theory of operation. Who may use the API is decided twice: by the mode of
// the socket (see Listen), and by the uid that the kernel recorded when the
// peer connected (see peerAllowed). A client is trusted to be friendly no
// further than that: headers, bodies and idle connections are bounded in size
// and time, and one that hangs holds up nobody else, and the end of the
// server for a short grace at most.
//
// Requests are parsed, and routed, by net/http. Its Server is not used: with it
// comes TLS, by which the launcher, whose clients are on this machine, would be
// larger by a seventh. What it does for a connection is in conn.go.
package apiserver

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/ports"
	"rootlesskit/internal/unixsock"
)

// maxHeader bounds a request's header, in bytes.
const maxHeader = 16 << 10

// limits bound what a client may take of time. The work of a port driver is
// not the client's fault, so it counts in none of them.
type limits struct {
	read  time.Duration // to send a request
	write time.Duration // to receive the response
	idle  time.Duration // between two requests
	// grace is what the requests that are under way have left when the server
	// is told to stop: after it they are cut.
	grace time.Duration
}

var defaultLimits = limits{read: 10 * time.Second, write: 10 * time.Second, idle: 10 * time.Minute, grace: time.Second}

// Config says what a Server serves.
type Config struct {
	// Info is the answer to GET /v1/info.
	Info func() (api.Info, error)
	// Ports is nil where there is no port driver.
	Ports *ports.Table
	// Handler is served instead of REST v1; nil is REST v1. Who may use it, and the
	// bounds, are the same.
	Handler http.Handler
	Log     *slog.Logger
}

// Server is a REST server.
type Server struct {
	cfg         Config
	limits      limits
	peerAllowed func(uid uint32) bool
}

// New returns a server; it does nothing before Serve.
func New(cfg Config) *Server {
	return &Server{cfg: cfg, limits: defaultLimits, peerAllowed: unixsock.OwnerOrRoot}
}

// Serve answers the clients of a listener, as Listen returns it, until ctx
// ends, and returns nil then. When it returns, the listener and all
// connections are closed and no request is under way. Running out of
// descriptors or memory does not end it, and without descriptors one client at a
// time is still served; other errors of the listener do, and are returned.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	// Requests outlive ctx for the grace.
	requests, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	conns := &connections{open: map[*conn]struct{}{}, spare: newReserve()}
	defer conns.spare.giveUp()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	err := s.acceptAll(requests, l, conns)
	l.Close()
	if ctx.Err() != nil {
		err = nil
		if !conns.drain(s.limits.grace) {
			s.cfg.Log.Warn("cutting API requests that are still under way")
		}
	}
	cancel()
	conns.cut()
	return err
}

// A shortage is waited out, for longer each time.
const (
	shortageMin = 5 * time.Millisecond
	shortageMax = time.Second
)

// acceptAll serves each client by a goroutine of its own until the listener
// fails or is closed.
func (s *Server) acceptAll(ctx context.Context, l net.Listener, conns *connections) error {
	handler := s.cfg.Handler
	if handler == nil {
		handler = s.routes()
	}
	handler = s.checkPeer(handler)
	wait, short := time.Duration(0), false
	for {
		socket, err := l.Accept()
		switch {
		case err == nil:
			wait = 0
			c := &conn{Conn: socket, server: s, handler: handler, once: short}
			short = false
			conns.serve(c, func() { c.serve(withPeer(ctx, socket)) })
		case isShortage(err) && conns.spare.giveUp():
			short = true
		case isShortage(err):
			if wait == 0 { // told once
				s.cfg.Log.Warn("a shortage delays API requests", "error", err)
			}
			wait = min(max(2*wait, shortageMin), shortageMax)
			time.Sleep(wait)
			conns.spare.restore()
		case errors.Is(err, unix.ECONNABORTED), errors.Is(err, unix.EINTR):
			// That client is gone.
		default:
			return err
		}
	}
}

func isShortage(err error) bool {
	for _, errno := range []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// connections are those that are open.
type connections struct {
	serving sync.WaitGroup
	spare   *reserve

	mu   sync.Mutex
	open map[*conn]struct{}
}

// serve runs f for a connection and closes it after that.
func (cs *connections) serve(c *conn, f func()) {
	cs.mu.Lock()
	cs.open[c] = struct{}{}
	cs.mu.Unlock()
	cs.serving.Go(func() {
		defer func() {
			c.Close()
			cs.spare.restore()
			cs.mu.Lock()
			delete(cs.open, c)
			cs.mu.Unlock()
		}()
		f()
	})
}

// drain ends the connections: the idle ones at once, the others after the
// response to what is under way. It reports whether all were in time.
func (cs *connections) drain(grace time.Duration) bool {
	ended := make(chan struct{})
	go func() { cs.serving.Wait(); close(ended) }()
	cs.each((*conn).finish)
	select {
	case <-ended:
		return true
	case <-time.After(grace):
		return false
	}
}

// cut closes what is open and waits for the end of all.
func (cs *connections) cut() {
	cs.each(func(c *conn) { c.Close() })
	cs.serving.Wait()
}

func (cs *connections) each(f func(*conn)) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c := range cs.open {
		f(c)
	}
}
