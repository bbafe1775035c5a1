// Package apiserver serves REST v1, as api/openapi.yaml describes it, on a Unix
// socket.
//
// Theory of operation. Two checks decide who may use the API: the mode of the
// socket, and the uid that the kernel recorded when the peer connected (see
// checkPeer). Beyond that, clients are not trusted: headers, bodies and idle
// connections are bounded in size and time. A client that hangs holds up no
// other, and delays the end of the server only for a short grace.
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

// limits bound the time that a client may take. The work of a port driver does
// not count, since the client does not cause it.
type limits struct {
	read  time.Duration // to send a request
	write time.Duration // to receive the response
	idle  time.Duration // between two requests
	// grace is how long requests in progress may continue when the server is told
	// to stop; then they are cut.
	grace time.Duration
}

var defaultLimits = limits{read: 10 * time.Second, write: 10 * time.Second, idle: 10 * time.Minute, grace: time.Second}

// Config says what a Server serves.
type Config struct {
	// Info is the answer to GET /v1/info.
	Info func() (api.Info, error)
	// Ports is nil without a port driver.
	Ports *ports.Table
	// Handler is served instead of REST v1; nil means REST v1. The same access
	// checks and bounds apply.
	Handler http.Handler
	Log     *slog.Logger
}

// Server is a REST server.
type Server struct {
	cfg         Config
	limits      limits
	peerAllowed func(uid uint32) bool
}

// New returns a server, which does nothing before Serve.
func New(cfg Config) *Server {
	return &Server{cfg: cfg, limits: defaultLimits, peerAllowed: unixsock.OwnerOrRoot}
}

// Serve answers the clients of a listener until ctx ends, and then returns nil.
// When it returns, the listener and all connections are closed and no request is
// in progress. Running out of descriptors or memory does not end Serve, and
// without descriptors it still serves one client at a time. Other errors of the
// listener end it and are returned.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	// Requests outlive ctx by the grace.
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	spare := newReserve()
	defer spare.giveUp()
	var conns sync.WaitGroup // each counts until its last handler has returned
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
