package gvisor

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"rootlesskit/internal/fdlimit"
	"rootlesskit/internal/sockio"
)

// tcpPort is a published TCP port.
type tcpPort struct {
	ctx       context.Context
	cancel    context.CancelFunc
	log       *slog.Logger
	stack     *stack.Stack
	clients   *clientSources
	counters  counters
	relays    *relayGroup
	admission *admission

	listeners []*sharedFD
	accepting sync.WaitGroup
}

// dialTimeout is how long the namespace may take to answer a client.
const dialTimeout = 30 * time.Second

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
	if !p.relays.room() {
		return fmt.Errorf("accept: %d connections are open", p.relays.max)
	}
	if before && fdlimit.Room() == 0 {
		return os.NewSyscallError("accept4", unix.EMFILE)
	}
	return nil
}

// acceptAll accepts what there is, nil, or what there is a place for.
func (p *tcpPort) acceptAll(fd int, targets []netip.AddrPort, ceiling int) error {
	for p.admission.wait(p.ctx) {
		conn, sa, err := unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err == nil {
			p.admit(conn, sockio.FromSockaddr(sa), targets)
			if err := p.shortage(conn >= ceiling); err != nil {
				return err
			}
			continue
		}
		p.admission.leave()
		switch err {
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

// admit starts to serve a connection.
func (p *tcpPort) admit(fd int, client netip.AddrPort, targets []netip.AddrPort) {
	host := os.NewFile(uintptr(fd), "tcp")
	if !p.relays.enter() { // closed, or another listener was faster
		p.admission.leave()
		abortFile(host)
		return
	}
	p.counters.accepted.Add(1)
	p.counters.active.Add(1)
	endTurn := p.admission.begin()
	go func() {
		defer p.relays.leave()
		p.forward(host, client, targets, endTurn)
	}()
}

// forward serves one connection.
func (p *tcpPort) forward(host *os.File, client netip.AddrPort, targets []netip.AddrPort, endTurn func()) {
	raw, err := host.SyscallConn()
	if err != nil {
		endTurn()
		host.Close()
		p.counters.active.Add(-1)
		return
	}
	r, err := p.connect(host, raw, client, targets)
	endTurn()
	if err != nil {
		p.counters.refused.Add(1)
		p.counters.active.Add(-1)
		p.counters.failed(err)
		p.log.Debug("forwarded connection refused", "client", client, "error", err)
		abortFile(host)
		return
	}
	err = p.relays.run(r)
	p.counters.active.Add(-1)
	if err != nil {
		p.counters.failed(err)
		p.log.Debug("forwarded connection cut", "client", client, "error", err)
	}
}

// connect connects to the first target that takes the connection.
func (p *tcpPort) connect(host *os.File, raw syscall.RawConn, client netip.AddrPort, targets []netip.AddrPort) (r *relay, err error) {
	for _, target := range familyFirst(client.Addr().Unmap(), targets) {
		wq := new(waiter.Queue)
		var ep tcpip.Endpoint
		if ep, err = p.connectFrom(client, target, wq); err == nil {
			return &relay{host: host, raw: raw, ep: ep, wq: wq, bytesIn: &p.counters.bytesIn, bytesOut: &p.counters.bytesOut}, nil
		}
		err = fmt.Errorf("connect %s: %w", target, err)
	}
	return nil, err
}

// familyFirst begins with the targets of a client's own family, in which its address can be
// shown: a socket may be open to both.
func familyFirst(client netip.Addr, targets []netip.AddrPort) []netip.AddrPort {
	other := func(t netip.AddrPort) bool { return t.Addr().Is6() != client.Is6() }
	return append(slices.DeleteFunc(slices.Clone(targets), other),
		slices.DeleteFunc(slices.Clone(targets), func(t netip.AddrPort) bool { return !other(t) })...)
}

// connectFrom connects to the namespace with the client's address and port as
// the source, or, where that pair is taken, with another port.
func (p *tcpPort) connectFrom(client, target netip.AddrPort, wq *waiter.Queue) (tcpip.Endpoint, error) {
	source := p.clients.source(client.Addr(), target.Addr().Is6())
	ep, started, err := p.startConnect(netip.AddrPortFrom(source, client.Port()), target, wq)
	if !started {
		ep, started, err = p.startConnect(netip.AddrPortFrom(source, 0), target, wq)
	}
	if !started {
		return nil, stackError(err)
	}
	if err := p.awaitConnect(ep, wq); err != nil {
		ep.Abort()
		return nil, err
	}
	prepareEndpoint(ep)
	return ep, nil
}

func (p *tcpPort) startConnect(source, target netip.AddrPort, wq *waiter.Queue) (ep tcpip.Endpoint, started bool, err tcpip.Error) {
	ep, err = p.stack.NewEndpoint(tcp.ProtocolNumber, networkProtocol(target.Addr()), wq)
	if err != nil {
		return nil, false, err
	}
	// The client may be on other published ports by the same port of its own.
	ep.SocketOptions().SetReusePort(true)
	if err = ep.Bind(fullAddress(source)); err == nil {
		err = ep.Connect(fullAddress(target))
	}
	if _, ok := err.(*tcpip.ErrConnectStarted); ok {
		return ep, true, nil
	}
	ep.Close()
	return nil, false, err
}

func (p *tcpPort) awaitConnect(ep tcpip.Endpoint, wq *waiter.Queue) error {
	entry, ready := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventHUp | waiter.EventErr)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	timeout := time.NewTimer(dialTimeout)
	defer timeout.Stop()
	for ep.Readiness(waiter.WritableEvents|waiter.EventHUp|waiter.EventErr) == 0 {
		select {
		case <-ready:
		case <-timeout.C:
			return unix.ETIMEDOUT
		case <-p.ctx.Done():
			return errClosed
		}
	}
	if err := ep.LastError(); err != nil {
		return stackError(err)
	}
	return nil
}

// Close implements io.Closer.
func (p *tcpPort) Close() error {
	p.cancel()
	for _, l := range p.listeners {
		l.close()
	}
	p.accepting.Wait()
	p.relays.close()
	<-p.relays.ended
	return nil
}

// abortFile closes a TCP socket with a reset.
func abortFile(f *os.File) {
	if raw, err := f.SyscallConn(); err == nil {
		resetOnClose(raw)
	}
	f.Close()
}
