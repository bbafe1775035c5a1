package relay

import (
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/eventloop"
	"rootlesskit/internal/fdlimit"
	"rootlesskit/internal/sockio"
)

// tcpListener is one loop's view of a listening socket. All loops share the
// socket; EPOLLEXCLUSIVE (epoll_ctl(2), Linux 4.5) wakes one of them for a
// connection.
type tcpListener struct {
	part  *tcpPart
	fd    int
	token eventloop.Token
	armed bool
	// A shortage of descriptors or memory disarms the listener for backoff.
	backoff time.Duration
	retry   *eventloop.Timer
	// ceiling is the first descriptor that connections must not use.
	ceiling int
}

const (
	backoffMin = 2 * time.Millisecond
	backoffMax = 100 * time.Millisecond
)

func (l *tcpListener) arm() (err error) {
	l.token, err = l.part.loop.set.Add(l.fd, unix.EPOLLIN|unix.EPOLLEXCLUSIVE, l)
	l.armed = err == nil
	return err
}

func (l *tcpListener) disarm() {
	l.part.loop.stopTimer(l.retry)
	if l.armed {
		l.part.loop.set.Remove(l.fd, l.token)
		l.armed = false
	}
}

// Ready implements eventloop.Handler: it accepts one connection. The descriptor is level-triggered, so others get
// their turn, and the next wait reports the next connection.
//
// It first takes a socket for the other side. If an accepted client had to wait
// for one, it would hold a descriptor, and in a shortage many such clients
// would leave none for the sockets that they wait for.
func (l *tcpListener) Ready(uint32) {
	pool := l.part.port.cfg.Pool(l.part.port.cfg.Family)
	if l.backoff > 0 && l.starved() {
		l.backOff(pool, unix.EMFILE)
		return
	}
	socket, ok := pool.get()
	switch {
	case ok:
	case l.starved():
		l.backOff(pool, unix.EMFILE)
		return
	default:
		l.awaitPool(pool)
		return
	}
	fd, from, errno := sockio.Accept(l.fd)
	switch errno {
	case 0:
		l.backoff = 0
		l.part.accepted(fd, from, socket)
		if fd >= l.ceiling {
			l.backOff(pool, unix.EMFILE)
		}
		return
	case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
		defer l.backOff(pool, errno)
	}
	// Else another loop was faster (EAGAIN), or the connection is gone.
	pool.putBack(socket)
}

// starved reports whether descriptors are short and the end of a connection can
// change that. If the ports themselves have used them up, clients are served one
// by one.
func (l *tcpListener) starved() bool { return l.part.loop.tcp.conns > 0 && fdlimit.Room() == 0 }

// awaitPool leaves the connections in the kernel's queue until there are
// sockets for them.
func (l *tcpListener) awaitPool(pool *Pool) {
	l.part.stats.acceptErrors.Add(1)
	l.disarm()
	pool.wait(&waiter{loop: l.part.loop, got: func(fd int) {
		if fd < 0 {
			return // the engine ends
		}
		pool.putBack(fd)
		l.rearm()
	}})
}

// backOff leaves the connections in the kernel's queue for a while. They are
// served when others have closed, which is better for them than a reset. The
// descriptor is level-triggered, so it must be disarmed, or the loop would
// spin.
//
// The limit of descriptors may have been lowered since the start (prlimit(2)), so
// far that the pool alone reaches it.
func (l *tcpListener) backOff(pool *Pool, err error) {
	p := l.part.port
	pool.shed()
	l.ceiling = fdlimit.Ceiling()
	l.part.stats.acceptErrors.Add(1)
	if l.backoff == 0 {
		reason := "accepting a connection: " + err.Error()
		p.lastError.Store(&reason)
		if p.shortage.due() {
			p.cfg.Log.Warn("a shortage delays new connections, the port stays open", "error", err)
		}
	}
	l.backoff = min(max(2*l.backoff, backoffMin), backoffMax)
	l.disarm()
	l.retry = l.part.loop.after(l.backoff, l.rearm)
}

func (l *tcpListener) rearm() {
	l.retry = nil
	if l.part.closed {
		return
	}
	if err := l.arm(); err != nil { // ENOMEM, ENOSPC: the shortage goes on
		l.retry = l.part.loop.after(l.backoff, l.rearm)
	}
}
