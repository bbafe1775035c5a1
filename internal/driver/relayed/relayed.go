// Package relayed is what the port drivers share that listen in the host and
// connect, from the parent itself, with sockets that the child made inside the
// namespace. On its own it is the driver builtin.
//
//	client -> listening socket (hostsock) -> relay.Engine -> pooled socket -> server
//	          made in the host                               made in the namespace
//
// A socket belongs to the network namespace that it was made in, whoever uses
// it, so no connection needs the child: it makes sockets in batches, ahead of
// time, and hands them over. The engine's threads start with the first port,
// and each pool with the first port that needs it.
package relayed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/driver"
	"rootlesskit/internal/fdlimit"
	"rootlesskit/internal/hostsock"
	"rootlesskit/internal/relay"
	"rootlesskit/internal/sourceip"
)

// Ports is the driver. It works with every network driver that gives the child
// a network namespace of its own, and needs nothing of it.
type Ports struct {
	name   string
	sb     driver.Sandbox
	flags  sourceFlags
	source *sourceip.Policy
	pools  *pools
	ended  chan struct{} // closed when everything is

	mu     sync.Mutex
	engine *relay.Engine // nil before the first port
	open   map[*Port]struct{}
	closed bool
}

// New returns a driver of that name. nil flags are the defaults.
func New(name string, flags driver.Flags) *Ports {
	return &Ports{name: name, flags: readSourceFlags(flags), ended: make(chan struct{}), open: map[*Port]struct{}{}}
}

// Start implements driver.Ports. It starts nothing that costs.
func (p *Ports) Start(ctx context.Context, sb driver.Sandbox, link driver.Link) error {
	p.sb = sb
	p.source = newSource(ctx, p.flags, sb, link)
	p.pools = newPools(ctx, sb)
	context.AfterFunc(ctx, p.end)
	return nil
}

// end closes everything, after Start's context has ended.
func (p *Ports) end() {
	p.mu.Lock()
	p.closed = true
	var open []*Port
	for port := range p.open {
		open = append(open, port)
	}
	p.mu.Unlock()
	for _, port := range open {
		port.Close()
	}
	p.pools.wait()
	if p.engine != nil {
		p.engine.Close()
	}
	close(p.ended)
}

// Wait implements driver.Ports.
func (p *Ports) Wait() error {
	<-p.ended
	return nil
}

// Info implements driver.Ports.
func (p *Ports) Info() api.PortDriverInfo {
	return api.PortDriverInfo{
		Driver:         p.name,
		Protos:         []string{"tcp", "tcp4", "tcp6", "udp", "udp4", "udp6"},
		ProxyProtocols: []string{api.ProxyProtocolV2},
		Extra:          p.sourceExtra(),
	}
}

// Forward implements driver.Ports.
func (p *Ports) Forward(_ context.Context, spec api.PortSpec) (io.Closer, error) {
	to, err := Target(spec)
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

// listen opens the host's sockets of a port. Where they have the last descriptors,
// the sockets that are at hand for connections give way.
func (p *Ports) listen(spec api.PortSpec) (hostsock.Sockets, error) {
	sockets, err := p.sb.Inherited.Listen(spec.Proto, spec.ParentIP, spec.ParentPort)
	short := err == nil && slices.Max(sockets.FDs) >= fdlimit.Ceiling()
	if short || errors.Is(err, unix.EMFILE) {
		p.pools.drain()
	}
	if errors.Is(err, unix.EMFILE) {
		return p.sb.Inherited.Listen(spec.Proto, spec.ParentIP, spec.ParentPort)
	}
	return sockets, err
}

// ForwardOn forwards what comes in at sockets, which it takes over, to an
// address of the namespace. wrap, where it is not nil, wraps the router or replaces
// it.
func (p *Ports) ForwardOn(spec api.PortSpec, to netip.AddrPort, sockets hostsock.Sockets, wrap func(Router) Router) (*Port, error) {
	taken := false
	port, err := p.start(func() (forwarded, error) {
		taken = true
		udp := strings.HasPrefix(spec.Proto, "udp")
		r := p.router(udp, spec, to)
		if wrap != nil {
			r = wrap(r)
		}
		if udp {
			return p.forwardUDP(sockets, to, r)
		}
		return p.forwardTCP(sockets, to, r)
	})
	if !taken {
		closeAll(sockets.FDs)
	}
	if err != nil {
		return nil, fmt.Errorf("forwarding %s: %w", spec, err)
	}
	return port, nil
}

// ForwardTCP relays connections that are no published port's: a driver's own
// business, such as the other direction. It takes the listeners over.
func (p *Ports) ForwardTCP(cfg relay.TCPConfig) (*Port, error) {
	taken := false
	defer func() {
		if !taken {
			closeAll(cfg.Listeners)
		}
	}()
	return p.start(func() (forwarded, error) {
		taken = true
		cfg.Log = p.sb.Log
		return p.engine.ForwardTCP(cfg)
	})
}

// ForwardUDP is ForwardTCP for datagrams.
func (p *Ports) ForwardUDP(cfg relay.UDPConfig) (*Port, error) {
	taken := false
	defer func() {
		if !taken {
			closeAll(cfg.Sockets)
		}
	}()
	return p.start(func() (forwarded, error) {
		taken = true
		cfg.Log = p.sb.Log
		return p.engine.ForwardUDP(cfg)
	})
}

// start runs forward with an engine, and keeps what it returns until it is closed.
func (p *Ports) start(forward func() (forwarded, error)) (*Port, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.startEngine(); err != nil {
		return nil, err
	}
	f, err := forward()
	if err != nil {
		return nil, err
	}
	port := &Port{forwarded: f, driver: p}
	p.open[port] = struct{}{}
	return port, nil
}

// startEngine starts the engine with the first port.
func (p *Ports) startEngine() (err error) {
	if p.closed {
		return fmt.Errorf("the port driver %s has ended", p.name)
	}
	if p.engine == nil {
		p.engine, err = relay.New(relay.Options{Log: p.sb.Log})
	}
	return err
}

func (p *Ports) forwardTCP(listeners hostsock.Sockets, to netip.AddrPort, r Router) (forwarded, error) {
	p.pools.get(unix.SOCK_STREAM, relay.FamilyOf(to.Addr()))
	return p.engine.ForwardTCP(relay.TCPConfig{
		Listeners: listeners.FDs,
		Shared:    listeners.Shared,
		Family:    relay.FamilyOf(to.Addr()),
		Pool:      func(family int) *relay.Pool { return p.pools.get(unix.SOCK_STREAM, family) },
		Route:     r.Route,
		Resolve:   r.Resolve,
		Reroute:   r.Reroute,
		Log:       p.sb.Log,
	})
}

func (p *Ports) forwardUDP(sockets hostsock.Sockets, to netip.AddrPort, r Router) (forwarded, error) {
	p.pools.get(unix.SOCK_DGRAM, relay.FamilyOf(to.Addr()))
	cfg := relay.UDPConfig{
		Sockets: sockets.FDs,
		Pool:    func(family int) *relay.Pool { return p.pools.get(unix.SOCK_DGRAM, family) },
		Route:   r.Route,
		Resolve: r.Resolve,
		Log:     p.sb.Log,
	}
	if l, ok := r.(looker); ok {
		cfg.Look = l.Look
	}
	return p.engine.ForwardUDP(cfg)
}

// forwarded is a relay.TCPPort or relay.UDPPort.
type forwarded interface {
	io.Closer
	driver.Detailer
}

// Port is a forwarded port.
type Port struct {
	forwarded
	driver *Ports
}

// Close implements io.Closer; it may be called again.
func (p *Port) Close() error {
	err := p.forwarded.Close() // under way elsewhere, it returns when that does
	p.driver.mu.Lock()
	defer p.driver.mu.Unlock()
	delete(p.driver.open, p)
	return err
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
