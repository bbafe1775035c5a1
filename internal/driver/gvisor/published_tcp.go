package gvisor

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/driver/gvisor/translate"
	"rootlesskit/internal/fdlimit"
	"rootlesskit/internal/sockio"
)

// tcpPort is a published TCP port. A goroutine for each listener accepts clients; their
// connections belong to the loop.
type tcpPort struct {
	ctx      context.Context
	cancel   context.CancelFunc
	log      *slog.Logger
	loop     *loop
	clients  *clientSources
	counters counters
	max      int64 // connections
	shared   bool  // the listeners are another process's, too

	listeners []*sharedFD
	accepting sync.WaitGroup
	calls     map[*call]struct{} // of the loop
}

// maxConnections is how many connections a port may have, and how many lead outside.
const maxConnections = 16 << 10

// How long to wait where the host is short of something.
const (
	minBackoff = 10 * time.Millisecond
	maxBackoff = 100 * time.Millisecond
)

// serve accepts connections of one listener until it is closed. targets are
// where to connect to, in order of preference.
//
// While the host is short of something, the kernel keeps connections in the
// listener's queue.
func (p *tcpPort) serve(listener *sharedFD, targets []netip.AddrPort) {
	if fd, ok := listener.acquire(); ok {
		sockio.PrepareTCP(fd) // what is accepted inherits it
		listener.release()
	}
	backoff, ceiling := minBackoff, fdlimit.Ceiling()
	var failure error
	for !listener.closed() {
		if failure = p.shortage(failure != nil); failure == nil {
			_ = listener.raw.Read(func(fd uintptr) bool {
				failure = p.acceptAll(int(fd), targets, ceiling)
				return failure != nil || p.ctx.Err() != nil
			})
		}
		if failure == nil {
			backoff = minBackoff
			continue
		}
		if p.ctx.Err() != nil {
			return // the listener was shut down
		}
		if p.counters.acceptErrors.Add(1) == 1 {
			p.log.Warn("a shortage delays new connections, the port stays open", "error", failure)
		}
		p.counters.failed(failure)
		ceiling = fdlimit.Ceiling() // it may have changed
		select {
		case <-p.ctx.Done():
			return
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// shortage is why there is no place for a connection now, nil if there is one.
// Descriptors are looked at only when they have been short before.
func (p *tcpPort) shortage(before bool) error {
	if p.counters.active.Load() >= p.max {
		return fmt.Errorf("accept: %d connections are open", p.max)
	}
	if before && fdlimit.Room() == 0 {
		return os.NewSyscallError("accept4", unix.EMFILE)
	}
	return nil
}

// acceptAll accepts what there is, nil, or what there is a place for.
func (p *tcpPort) acceptAll(fd int, targets []netip.AddrPort, ceiling int) error {
	for p.ctx.Err() == nil {
		conn, sa, err := unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch err {
		case nil:
			p.admit(conn, sockio.FromSockaddr(sa), targets)
			if err := p.shortage(conn >= ceiling); err != nil {
				return err
			}
		case unix.EAGAIN:
			return nil
		case unix.EINTR, unix.ECONNABORTED, unix.EPROTO, unix.EPERM:
			// The client is gone, or a firewall rule said so (accept(2)).
		default:
			return os.NewSyscallError("accept4", err)
		}
	}
	return nil
}

// admit hands a client over to the loop.
func (p *tcpPort) admit(fd int, client netip.AddrPort, targets []netip.AddrPort) {
	p.counters.accepted.Add(1)
	p.counters.active.Add(1)
	c := &call{port: p, client: client, socket: &hostTCP{loop: p.loop, fd: fd}}
	for _, target := range familyFirst(client.Addr().Unmap(), targets) {
		source := netip.AddrPortFrom(p.clients.source(client.Addr(), target.Addr().Is6()), client.Port())
		c.ways = append(c.ways, way{source, target})
	}
	if !p.loop.mail.Post(c.begin) {
		c.refused(errClosed)
	}
}

// familyFirst begins with the targets of a client's own family, in which its address can be
// shown: a socket may be open to both.
func familyFirst(client netip.Addr, targets []netip.AddrPort) []netip.AddrPort {
	other := func(t netip.AddrPort) bool { return t.Addr().Is6() != client.Is6() }
	return append(slices.DeleteFunc(slices.Clone(targets), other),
		slices.DeleteFunc(slices.Clone(targets), func(t netip.AddrPort) bool { return !other(t) })...)
}

// Close implements io.Closer.
func (p *tcpPort) Close() error {
	p.cancel()
	for _, l := range p.listeners {
		if !p.shared {
			shutdown(l)
		}
		l.close()
	}
	p.accepting.Wait()
	p.loop.mail.Call(func() {
		for c := range p.calls {
			c.end()
		}
	})
	return nil
}

// shutdown ends a listener for all who have it: until its exec, a program that is being
// started holds a copy, which would keep the port.
func shutdown(listener *sharedFD) {
	if fd, ok := listener.acquire(); ok {
		_ = unix.Shutdown(fd, unix.SHUT_RDWR)
		listener.release()
	}
}

// call is the connection of a client to the namespace.
type call struct {
	port   *tcpPort
	client netip.AddrPort
	socket *hostTCP
	ways   []way // to try
	opened bool
	end    func()
}

// way is where to connect to, and as whom.
type way struct{ source, target netip.AddrPort }

// begin tries the next way, in the loop.
func (c *call) begin() {
	if c.port.ctx.Err() != nil {
		c.refused(errClosed)
		return
	}
	w := c.ways[0]
	c.ways = c.ways[1:]
	end, err := c.port.loop.translator.Call(translate.Call{
		Socket: c.socket, Source: w.source, Target: w.target,
		In: &c.port.counters.bytesIn, Out: &c.port.counters.bytesOut,
		Opened: func() { c.opened = true },
		Ended:  func(err error) { c.ended(w.target, err) },
	})
	if err != nil {
		c.ended(w.target, err)
		return
	}
	c.end = end
	c.port.calls[c] = struct{}{}
}

// ended is called at the end of a way that was tried, or was taken.
func (c *call) ended(target netip.AddrPort, err error) {
	p := c.port
	delete(p.calls, c)
	switch {
	case c.opened:
		p.counters.active.Add(-1)
		if err != nil {
			p.counters.failed(err)
			p.log.Debug("forwarded connection cut", "client", c.client, "error", err)
		}
	case len(c.ways) > 0 && p.ctx.Err() == nil:
		c.begin()
	default:
		c.refused(fmt.Errorf("connect %s: %w", target, err))
	}
}

// refused resets the client's connection.
func (c *call) refused(err error) {
	c.port.counters.refused.Add(1)
	c.port.counters.active.Add(-1)
	c.port.counters.failed(err)
	c.port.log.Debug("forwarded connection refused", "client", c.client, "error", err)
	c.socket.Reset()
}
