package bypass

import (
	"errors"
	"io"
	"net/http"
	"net/netip"

	"rootlesskit/api"
	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/bypass/containers"
	"rootlesskit/internal/hostsock"
	"rootlesskit/internal/relay"
	"rootlesskit/internal/seccomp"
)

// What package containers needs of the driver.

var (
	_ containers.Driver = (*Ports)(nil)
	_ driver.Serving    = (*Ports)(nil)
	_ driver.Supervisor = (*Ports)(nil)
)

// Socket implements driver.Serving.
func (p *Ports) Socket() string { return p.socket }

// Handler implements driver.Serving.
func (p *Ports) Handler() http.Handler { return p.containers.Handler() }

// ForwardTo implements containers.Driver.
func (p *Ports) ForwardTo(g containers.Guest, spec api.PortSpec, r relay.Router) (io.Closer, error) {
	udp := spec.Proto.Transport() == api.UDP
	if !udp && spec.ProxyProtocol == "" {
		return p.forwardBase(spec, guestTarget(spec), g, r)
	}
	sockets, err := hostsock.Listen(spec.Proto, spec.ParentIP, spec.ParentPort)
	if err != nil {
		return nil, err
	}
	port, err := p.ForwardOn(spec, guestTarget(spec), hostsock.Sockets{FDs: sockets}, func(relay.Router) relay.Router { return r })
	switch {
	case err != nil:
		return nil, err
	case udp:
		return port, nil
	}
	return &fallbackPort{port, errProxyProtocol}, nil
}

// guestTarget has the port of a container. Only the family of the address matters:
// it is the one that most containers have.
func guestTarget(spec api.PortSpec) netip.AddrPort {
	return netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(spec.ChildPort))
}

// FallBack implements containers.Driver.
func (p *Ports) FallBack(g containers.Guest, why error) {
	p.mu.Lock()
	var its []*port
	for to, ports := range p.byTarget {
		if to.guest == g {
			its = append(its, ports...)
		}
	}
	p.mu.Unlock()
	for _, port := range its {
		port.fallBack(why)
	}
}

// NoNative implements containers.Driver.
func (p *Ports) NoNative() error {
	switch why := p.unavailable(); {
	case why != nil:
		return why
	case p.isolate:
		return errors.New("--disable-host-loopback: nothing keeps a container from connecting a socket of the host, its Landlock is not ours")
	}
	return nil
}

// Answer implements containers.Driver.
func (p *Ports) Answer(l *seccomp.Listener, g containers.Guest, ended func()) {
	s := &session{driver: p, netns: p.child, published: p.publishedBy(g)}
	if g != nil {
		s.netns = g.Netns()
	}
	p.run(s, l, func(error) { ended() })
}

// PassThrough implements containers.Driver.
func (p *Ports) PassThrough(l *seccomp.Listener, ended func()) {
	none := func(uint16) []*port { return nil }
	p.run(&session{driver: p, published: none}, l, func(error) { ended() })
}
