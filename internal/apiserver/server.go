// Package apiserver serves REST v1, as api/openapi.yaml describes it, on a Unix
// socket.
//
// Theory of operation. Who may use the API is decided twice: by the mode of
// the socket (see Listen), and by the uid that the kernel recorded when the
// peer connected (see peerAllowed). A client is trusted to be friendly no
// further than that: headers, bodies and idle connections are bounded in size
// and time, and one that hangs holds up nobody else, and the end of the
// server for a short grace at most.
package apiserver

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

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
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	spare := newReserve()
	defer spare.giveUp()
	var conns sync.WaitGroup // each until its last handler has returned
	srv := s.httpServer(serving, &conns)
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	err := srv.Serve(&listener{l, s, spare})
	if ctx.Err() != nil {
		err = nil
		grace, end := context.WithTimeout(serving, s.limits.grace)
		defer end()
		if srv.Shutdown(grace) != nil {
			s.cfg.Log.Warn("cutting API requests that are still in progress")
		}
	}
	cancel()
	_ = srv.Close()
	conns.Wait()
	return err
}

func (s *Server) httpServer(serving context.Context, conns *sync.WaitGroup) *http.Server {
	handler := s.cfg.Handler
	if handler == nil {
		handler = s.routes()
	}
	return &http.Server{
		Handler:           s.untilHungUp(serving, s.checkPeer(handler)),
		ReadHeaderTimeout: s.limits.read,
		ReadTimeout:       s.limits.read,
		IdleTimeout:       s.limits.idle,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelError),
		BaseContext:       func(net.Listener) context.Context { return serving },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(withPeer(ctx, c), connKey{}, c)
		},
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				conns.Add(1)
			case http.StateClosed:
				conns.Done()
			}
		},
	}
}
