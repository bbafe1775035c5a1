package relay

import (
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
)

// TCPConfig says what to forward.
type TCPConfig struct {
	// Listeners are nonblocking listening sockets; they become the port's.
	Listeners []int
	// Pool returns the pool of stream sockets of a family, unix.AF_INET or
	// unix.AF_INET6.
	Pool func(family int) *Pool
	// Family is that of the port's targets: a socket of its pool is taken before
	// a connection is accepted. 0 is unix.AF_INET.
	Family int
	// Route is asked for each connection, of a client that was accepted at local.
	// It is called on a loop and must not block.
	Route func(client, local netip.AddrPort) Route
	// Resolve is asked, on a goroutine of its own, where Route has no Target; it
	// may block for a while. It may be nil: then there is no way.
	Resolve func(client, local netip.AddrPort) Route
	// Reroute is asked, once for a connection, where the route could not be
	// taken; false gives it up. It may be nil.
	Reroute func(client, local netip.AddrPort, failed error) (Route, bool)
	// Log is where faults are told; nil is the engine's.
	Log *slog.Logger
}

// TCPPort is a forwarded port: its listeners are registered with every loop, and
// a connection stays on the loop that accepted it.
type TCPPort struct {
	engine *Engine
	cfg    TCPConfig
	parts  []*tcpPart
	close  sync.Once
	stats  counters
	// shortage limits what is said of one.
	shortage seldom
}

// tcpPart is what one loop has of a port. It belongs to the loop's thread.
type tcpPart struct {
	port      *TCPPort
	loop      *loop
	listeners []*tcpListener
	conns     connList
	closed    bool
}

// ForwardTCP starts to forward. It takes the listeners over, also where it
// fails.
func (e *Engine) ForwardTCP(cfg TCPConfig) (*TCPPort, error) {
	if cfg.Log == nil {
		cfg.Log = e.log
	}
	if cfg.Family == 0 {
		cfg.Family = unix.AF_INET
	}
	p := &TCPPort{engine: e, cfg: cfg}
	for _, l := range e.loops {
		part := &tcpPart{port: p, loop: l}
		p.parts = append(p.parts, part)
		var err error
		if !l.call(func() { err = part.listen() }) {
			err = errors.New("the engine is closed")
		}
		if err != nil {
			_ = p.Close()
			return nil, err
		}
	}
	return p, nil
}

// Close closes the listeners and cuts the connections. When it returns, the
// port can be bound again.
func (p *TCPPort) Close() error {
	p.close.Do(func() {
		for _, part := range p.parts {
			part.loop.call(part.end)
		}
		closeAll(p.cfg.Listeners)
	})
	return nil
}

// Details implements driver.Detailer.
func (p *TCPPort) Details() api.PortDetails { return p.stats.details() }

func (t *tcpPart) listen() error {
	for _, fd := range t.port.cfg.Listeners {
		l := &tcpListener{part: t, fd: fd}
		t.listeners = append(t.listeners, l)
		if err := l.arm(); err != nil {
			return err
		}
	}
	return nil
}

func (t *tcpPart) end() {
	t.closed = true
	for _, l := range t.listeners {
		l.disarm()
	}
	for c := t.conns.first; c != nil; c = t.conns.first {
		c.abort()
	}
}

// counters are a port's; every loop adds to them.
type counters struct {
	accepted, refused, closed, acceptErrors atomic.Uint64
	bytes                                   [2]atomic.Uint64 // by direction
	lastError                               atomic.Pointer[string]
}

func (s *counters) details() api.PortDetails {
	d := api.PortDetails{
		Refused:      s.refused.Load(),
		BytesIn:      s.bytes[toChild].Load(),
		BytesOut:     s.bytes[toClient].Load(),
		AcceptErrors: s.acceptErrors.Load(),
	}
	// Closed first: it must not be ahead of accepted.
	closed := s.closed.Load()
	d.Accepted = s.accepted.Load()
	d.Active = d.Accepted - closed
	if e := s.lastError.Load(); e != nil {
		d.LastError = *e
	}
	return d
}

func (s *counters) refuse(reason string) {
	s.refused.Add(1)
	s.lastError.Store(&reason)
}

// sockaddrOf turns an address into what connect and bind take.
func sockaddrOf(a netip.AddrPort, family int) unix.Sockaddr {
	if family == unix.AF_INET {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// familyOf is the family of sockets for an address.
func familyOf(a netip.Addr) int {
	if a.Unmap().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// addrPortOf is the address in a raw sockaddr.
func addrPortOf(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}
