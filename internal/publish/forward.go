package publish

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/fdlimit"
	"rootlesskit/internal/hostsock"
	"rootlesskit/internal/relay"
	"rootlesskit/internal/sockio"
	"rootlesskit/internal/sourceip"
)

// Forward publishes one port until it is closed. The error for a port that
// cannot be bound has the wording of Go's net package.
func (p *Ports) Forward(spec api.PortSpec) (*Port, error) {
	to, err := p.target(spec)
	if err == nil && to.Addr().Is6() && !hasIPv6() {
		to, err = withoutIPv6(spec, to)
	}
	if err != nil {
		return nil, err
	}
	sockets, err := p.listen(spec)
	if err != nil {
		return nil, err
	}
	return p.ForwardOn(spec, to, sockets, nil)
}

// listen opens the host's sockets of a port. If they take the last descriptors, it
// closes sockets that the pools keep ready.
func (p *Ports) listen(spec api.PortSpec) (hostsock.Sockets, error) {
	sockets, err := p.cfg.Inherited.Listen(spec.Proto, spec.ParentIP, spec.ParentPort)
	short := err == nil && slices.Max(sockets.FDs) >= fdlimit.Ceiling()
	if short || errors.Is(err, unix.EMFILE) {
		p.pools.drain()
	}
	if errors.Is(err, unix.EMFILE) {
		return p.cfg.Inherited.Listen(spec.Proto, spec.ParentIP, spec.ParentPort)
	}
	return sockets, err
}

// ForwardOn forwards from sockets, which it takes over, to an address of the
// namespace. wrap, if not nil, wraps or replaces the router.
func (p *Ports) ForwardOn(spec api.PortSpec, to netip.AddrPort, sockets hostsock.Sockets, wrap func(relay.Router) relay.Router) (*Port, error) {
	taken := false
	udp := spec.Proto.Transport() == api.UDP
	var own *router
	port, err := p.start(func(at netip.Addr) (forwarded, error) {
		taken = true
		own = p.router(udp, spec, to, at)
		past := p.newPastProxy(udp, to, own)
		if past == nil {
			return p.forward(udp, sockets, to, own, wrap)
		}
		f, err := p.forward(udp, sockets, to, past, wrap)
		if err != nil {
			past.Close()
			return nil, err
		}
		return lookingPast{f, past}, nil
	}, func(ip netip.Addr) {
		own.port.Store(p.source.Port(protocol(udp), netip.AddrPortFrom(ip, to.Port()), sourceip.Own))
	})
	if !taken {
		sockio.CloseAll(sockets.FDs)
	}
	if err != nil {
		return nil, fmt.Errorf("forwarding %s: %w", spec, err)
	}
	return port, nil
}

// ForwardTCP relays connections that do not belong to a published port, for a
// driver's own purposes, such as the opposite direction. It takes over the
// listeners.
func (p *Ports) ForwardTCP(cfg relay.TCPConfig) (*Port, error) {
	taken := false
	defer func() {
		if !taken {
			sockio.CloseAll(cfg.Listeners)
		}
	}()
	return p.start(func(netip.Addr) (forwarded, error) {
		taken = true
		cfg.Log = p.cfg.Log
		return p.engine.ForwardTCP(cfg)
	}, nil)
}

// ForwardUDP is like ForwardTCP, for datagrams.
func (p *Ports) ForwardUDP(cfg relay.UDPConfig) (*Port, error) {
	taken := false
	defer func() {
		if !taken {
			sockio.CloseAll(cfg.Sockets)
		}
	}()
	return p.start(func(netip.Addr) (forwarded, error) {
		taken = true
		cfg.Log = p.cfg.Log
		return p.engine.ForwardUDP(cfg)
	}, nil)
}

// start calls forward once there is an engine, with the namespace's own address of
// Retarget, and keeps track of the result until it is closed. p.mu is not held
// meanwhile. retarget may be nil.
func (p *Ports) start(forward func(own netip.Addr) (forwarded, error), retarget func(netip.Addr)) (*Port, error) {
	p.mu.Lock()
	own, err := p.own, p.startEngine()
	if err == nil {
		p.starting.Add(1)
		defer p.starting.Done()
	}
	p.mu.Unlock()
	if err != nil {
		return nil, err
	}
	f, err := forward(own)
	if err != nil {
		return nil, err
	}
	port := &Port{forwarded: f, of: p, retarget: retarget}
	p.mu.Lock()
	closed := p.closed
	if !closed {
		p.open[port] = struct{}{}
		if retarget != nil && p.own != own {
			retarget(p.own)
		}
	}
	p.mu.Unlock()
	if closed {
		_ = f.Close()
		return nil, errClosed
	}
	return port, nil
}

var errClosed = errors.New("no ports are published any more")

// startEngine starts the engine with the first port.
func (p *Ports) startEngine() (err error) {
	if p.closed {
		return errClosed
	}
	if p.engine == nil {
		p.engine, err = relay.New(relay.Options{Log: p.cfg.Log})
	}
	return err
}

func (p *Ports) forward(udp bool, sockets hostsock.Sockets, to netip.AddrPort, r relay.Router, wrap func(relay.Router) relay.Router) (forwarded, error) {
	if wrap != nil {
		r = wrap(r)
	}
	if udp {
		return p.forwardUDP(sockets, to, r)
	}
	return p.forwardTCP(sockets, to, r)
}

func (p *Ports) forwardTCP(listeners hostsock.Sockets, to netip.AddrPort, r relay.Router) (forwarded, error) {
	p.pools.get(unix.SOCK_STREAM, sockio.Family(to.Addr()))
	return p.engine.ForwardTCP(relay.TCPConfig{
		Listeners: listeners.FDs,
		Shared:    listeners.Shared,
		Family:    sockio.Family(to.Addr()),
		Pool:      func(family int) *relay.Pool { return p.pools.get(unix.SOCK_STREAM, family) },
		Router:    r,
		Log:       p.cfg.Log,
	})
}

func (p *Ports) forwardUDP(sockets hostsock.Sockets, to netip.AddrPort, r relay.Router) (forwarded, error) {
	p.pools.get(unix.SOCK_DGRAM, sockio.Family(to.Addr()))
	cfg := relay.UDPConfig{
		Sockets: sockets.FDs,
		Pool:    func(family int) *relay.Pool { return p.pools.get(unix.SOCK_DGRAM, family) },
		Router:  r,
		Log:     p.cfg.Log,
	}
	return p.engine.ForwardUDP(cfg)
}

// forwarded is a relay.TCPPort or relay.UDPPort.
type forwarded interface {
	io.Closer
	Details() api.PortDetails
}

// Port is a forwarded port.
type Port struct {
	forwarded
	of       *Ports
	retarget func(netip.Addr) // nil unless the port leads to Config.Own
}

// Close implements io.Closer; it may be called again.
func (p *Port) Close() error {
	err := p.forwarded.Close() // if it is already in progress, this waits for it
	p.of.mu.Lock()
	defer p.of.mu.Unlock()
	delete(p.of.open, p)
	return err
}
