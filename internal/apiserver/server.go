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
)

// maxHeader bounds a request's header, in bytes (net/http adds 4 KiB).
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
	Log   *slog.Logger
}

// Server is a REST server.
type Server struct {
	cfg         Config
	limits      limits
	peerAllowed func(uid uint32) bool
}

// New returns a server; it does nothing before Serve.
func New(cfg Config) *Server {
	return &Server{cfg: cfg, limits: defaultLimits, peerAllowed: isOwnerOrRoot}
}

// Serve answers the clients of a listener, as Listen returns it, until ctx
// ends, and returns nil then. When it returns, the listener and all
// connections are closed and no request is under way. Running out of
// descriptors or memory does not end it; other errors of the listener do, and
// are returned.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	// Requests outlive ctx for the grace.
	requests, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var conns sync.WaitGroup
	server := s.httpServer(requests, &conns)
	served := make(chan error, 1)
	go func() { served <- server.Serve(tolerant{l}) }()

	var err error
	select {
	case err = <-served:
	case <-ctx.Done():
		grace, stop := context.WithTimeout(requests, s.limits.grace)
		if server.Shutdown(grace) != nil {
			s.cfg.Log.Warn("cutting API requests that are still under way")
		}
		stop()
		<-served
	}
	cancel()
	server.Close()
	conns.Wait()
	return err
}

func (s *Server) httpServer(ctx context.Context, conns *sync.WaitGroup) *http.Server {
	return &http.Server{
		Handler:        s.checkPeer(s.routes()),
		ReadTimeout:    s.limits.read,
		WriteTimeout:   s.limits.write,
		IdleTimeout:    s.limits.idle,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelWarn),
		BaseContext:    func(net.Listener) context.Context { return ctx },
		ConnContext:    withPeer,
		// OPTIONS is a request like any other.
		DisableGeneralOptionsHandler: true,
		// A connection is new before Serve returns, and closed after its last
		// handler returned.
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
