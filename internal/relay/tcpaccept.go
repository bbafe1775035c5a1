package relay

import (
	"time"

	"golang.org/x/sys/unix"
)

// tcpListener is a listening socket as one loop sees it. All loops share the
// socket; EPOLLEXCLUSIVE (epoll_ctl(2), Linux 4.5) wakes one of them for a
// connection.
type tcpListener struct {
	part  *tcpPart
	fd    int
	token token
	armed bool
	// A shortage of descriptors or memory disarms the listener for backoff.
	backoff time.Duration
	retry   *timer
}

// acceptBurst bounds the connections taken for one event, so that they spread
// over the loops and those there are have their turn.
const acceptBurst = 8

const (
	backoffMin = 2 * time.Millisecond
	backoffMax = 100 * time.Millisecond
)

func (l *tcpListener) arm() (err error) {
	l.token, err = l.part.loop.register(l.fd, unix.EPOLLIN|unix.EPOLLEXCLUSIVE, l)
	l.armed = err == nil
	return err
}

func (l *tcpListener) disarm() {
	l.part.loop.stopTimer(l.retry)
	if l.armed {
		l.part.loop.unregister(l.fd, l.token)
		l.armed = false
	}
}

// ready accepts.
func (l *tcpListener) ready(uint32) {
	for range acceptBurst {
		fd, sa, err := unix.Accept4(l.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch err {
		case nil:
			l.recovered()
			l.part.accepted(fd, sa)
		case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
			l.backOff(err)
			return
		case unix.ECONNABORTED, unix.EINTR, unix.EPROTO, unix.EPERM:
			// accept(2): about one connection, the next may do.
		default: // EAGAIN: another loop was faster
			return
		}
		if l.part.closed || !l.armed {
			return
		}
	}
}

// backOff leaves the connections in the kernel's queue for a while: they are
// served when others have closed, which is better for them than a reset. The
// descriptor is level-triggered, so it has to be disarmed not to spin.
func (l *tcpListener) backOff(err error) {
	p := l.part.port
	p.stats.acceptErrors.Add(1)
	if l.backoff == 0 {
		reason := "accepting a connection: " + err.Error()
		p.stats.lastError.Store(&reason)
		p.cfg.Log.Warn("a shortage delays new connections, the port stays open", "error", err)
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

func (l *tcpListener) recovered() {
	if l.backoff > 0 {
		l.backoff = 0
		l.part.port.cfg.Log.Info("new connections are accepted again")
	}
}
