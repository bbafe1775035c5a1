// Package builtin is RootlessKit's own port driver: it listens in the host and
// connects, from the parent itself, with sockets that the child made inside
// the namespace.
//
//	client -> listening socket (hostsock) -> relay.Engine -> pooled socket -> server
//	          made in the host                               made in the namespace
//
// A socket belongs to the network namespace that it was made in, whoever uses
// it, so no connection needs the child: it makes sockets in batches, ahead of
// time, and hands them over. The engine's threads start with the first port,
// and each pool with the first port that needs it.
package builtin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/driver"
	"rootlesskit/internal/hostsock"
	"rootlesskit/internal/relay"
	"rootlesskit/internal/sourceip"
)

// Name is the driver's name on the command line.
const Name = "builtin"

// Ports is the driver. It works with every network driver that gives the child
// a network namespace of its own, and needs nothing of it.
type Ports struct {
	sb     driver.Sandbox
	flags  sourceFlags
	source *sourceip.Policy
	pools  *pools
	ended  chan struct{} // closed when everything is

	mu     sync.Mutex
	engine *relay.Engine // nil before the first port
	open   map[*port]struct{}
	closed bool
}

// New returns the driver.
func New(_ driver.Network, flags driver.Flags) (driver.Ports, error) {
	return &Ports{flags: readSourceFlags(flags), ended: make(chan struct{}), open: map[*port]struct{}{}}, nil
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
	var open []*port
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
		Driver:         Name,
		Protos:         []string{"tcp", "tcp4", "tcp6", "udp", "udp4", "udp6"},
		ProxyProtocols: []string{api.ProxyProtocolV2},
		Extra:          p.sourceExtra(),
	}
}

// Forward implements driver.Ports.
func (p *Ports) Forward(_ context.Context, spec api.PortSpec) (io.Closer, error) {
	to, err := target(spec, hostIPv4())
	if err != nil {
		return nil, err
	}
	sockets, err := p.sb.Inherited.Listen(spec.Proto, spec.ParentIP, spec.ParentPort)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.startEngine(); err != nil {
		closeAll(sockets.FDs)
		return nil, err
	}
	forward := p.forwardTCP
	if strings.HasPrefix(spec.Proto, "udp") {
		forward = p.forwardUDP
	}
	relayed, err := forward(sockets, to, spec.ProxyProtocol != "")
	if err != nil {
		return nil, fmt.Errorf("forwarding %s: %w", spec, err)
	}
	port := &port{relayed: relayed, driver: p}
	p.open[port] = struct{}{}
	return port, nil
}

// startEngine starts the engine with the first port.
func (p *Ports) startEngine() (err error) {
	if p.closed {
		return errors.New("the builtin port driver has ended")
	}
	if p.engine == nil {
		p.engine, err = relay.New(relay.Options{Log: p.sb.Log})
	}
	return err
}

func (p *Ports) forwardTCP(listeners hostsock.Sockets, to netip.AddrPort, proxyHeader bool) (relayed, error) {
	p.pools.get(unix.SOCK_STREAM, familyOf(to.Addr()))
	r := p.router(unix.IPPROTO_TCP, to)
	r.proxyHeader = proxyHeader
	return p.engine.ForwardTCP(relay.TCPConfig{
		Listeners: listeners.FDs,
		Shared:    listeners.Shared,
		Family:    familyOf(to.Addr()),
		Pool:      func(family int) *relay.Pool { return p.pools.get(unix.SOCK_STREAM, family) },
		Route:     r.route,
		Resolve:   r.resolve,
		Reroute:   r.reroute,
		Log:       p.sb.Log,
	})
}

func (p *Ports) forwardUDP(sockets hostsock.Sockets, to netip.AddrPort, _ bool) (relayed, error) {
	p.pools.get(unix.SOCK_DGRAM, familyOf(to.Addr()))
	r := p.router(unix.IPPROTO_UDP, to)
	return p.engine.ForwardUDP(relay.UDPConfig{
		Sockets: sockets.FDs,
		Pool:    func(family int) *relay.Pool { return p.pools.get(unix.SOCK_DGRAM, family) },
		Route:   r.route,
		Resolve: r.resolve,
		Log:     p.sb.Log,
	})
}

// relayed is a relay.TCPPort or relay.UDPPort.
type relayed interface {
	io.Closer
	driver.Detailer
}

// port is what Forward returns.
type port struct {
	relayed
	driver *Ports
}

// Close implements io.Closer; it may be called again.
func (p *port) Close() error {
	err := p.relayed.Close() // under way elsewhere, it returns when that does
	p.driver.mu.Lock()
	defer p.driver.mu.Unlock()
	delete(p.driver.open, p)
	return err
}

func familyOf(ip netip.Addr) int {
	if ip.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
