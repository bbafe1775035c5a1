package apiserver

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// conn is a client's connection.
type conn struct {
	*net.UnixConn
	once   bool          // for one request: see reserve
	write  time.Duration // to receive what is written
	closed func()        // called once
}

// Write bounds the time that the client takes, not the time of a handler.
func (c *conn) Write(b []byte) (int, error) {
	_ = c.SetWriteDeadline(time.Now().Add(c.write))
	return c.UnixConn.Write(b)
}

func (c *conn) Close() error {
	err := c.UnixConn.Close()
	c.closed()
	return err
}

// hungUp reports whether the client has closed the connection. A client that has only
// shut down its direction (shutdown(2), as nc -N and socat do after a request) still
// waits for the answer.
func (c *conn) hungUp() bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	var polled []unix.PollFd
	err = raw.Control(func(fd uintptr) {
		polled = []unix.PollFd{{Fd: int32(fd)}}
		_, err = unix.Poll(polled, 0)
	})
	return err != nil || polled[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
}

// hangUpPoll is how often a connection that has ended in one direction is checked
// while a handler works.
const hangUpPoll = 50 * time.Millisecond

// awaitHangUp returns when the client has closed the connection, or ctx has ended.
func (c *conn) awaitHangUp(ctx context.Context) {
	tick := time.NewTicker(hangUpPoll)
	defer tick.Stop()
	for !c.hungUp() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

type connKey struct{}

// untilHungUp makes a request end with its client or with the server. net/http would
// end it as soon as the client shuts down its direction.
func (s *Server) untilHungUp(serving context.Context, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, ok := r.Context().Value(connKey{}).(*conn)
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		if c.once {
			w.Header().Set("Connection", "close")
		}
		ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
		defer cancel()
		defer context.AfterFunc(serving, cancel)()
		defer context.AfterFunc(r.Context(), func() {
			c.awaitHangUp(ctx)
			cancel()
		})()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// The wait during a shortage doubles each time, up to a limit.
const (
	shortageMin = 5 * time.Millisecond
	shortageMax = time.Second
)

// listener accepts clients even if descriptors are short: see reserve.
type listener struct {
	net.Listener
	server *Server
	spare  *reserve
}

// Accept implements net.Listener. It only returns permanent errors.
func (l *listener) Accept() (net.Conn, error) {
	wait, short := time.Duration(0), false
	for {
		socket, err := l.Listener.Accept()
		switch {
		case err == nil:
			return l.conn(socket, short), nil
		case isShortage(err) && l.spare.giveUp():
			short = true
		case isShortage(err):
			if wait == 0 { // log it once
				l.server.cfg.Log.Warn("a shortage delays API requests", "error", err)
			}
			wait = min(max(2*wait, shortageMin), shortageMax)
			time.Sleep(wait)
			l.spare.restore()
		case errors.Is(err, unix.ECONNABORTED), errors.Is(err, unix.EINTR):
			// That client has gone.
		default:
			return nil, err
		}
	}
}

func (l *listener) conn(socket net.Conn, once bool) net.Conn {
	c, ok := socket.(*net.UnixConn)
	if !ok {
		return socket
	}
	return &conn{UnixConn: c, once: once, write: l.server.limits.write, closed: sync.OnceFunc(l.spare.restore)}
}

func isShortage(err error) bool {
	for _, errno := range []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
