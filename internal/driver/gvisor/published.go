package gvisor

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
	"rootlesskit/internal/driver/relayed"
	"rootlesskit/internal/fdlimit"
	"rootlesskit/internal/hostsock"
	"rootlesskit/internal/sockio"
)

// Ports publishes ports through the stack of the Network of the same run. The
// namespace sees a client's own address as the source of its connections and
// datagrams; clients on the host's loopback interface appear as the gateway.
//
// Packets from the link reach no loopback address, and no container behind a userland
// proxy: container engines drop packets to a container from interfaces other than its
// bridge. So if a port's child address is given as one of the namespace's own, the
// relay serves the port: it connects from inside, and bypasses such proxies.
//
// It is a driver.Ports. The Closers of Forward are driver.Detailers.
type Ports struct {
	network *Network
	relay   *relayed.Ports

	ctx       context.Context
	clients   clientSources
	link      driver.Link
	inherited *hostsock.Inherited

	mu     sync.Mutex
	closed bool
	open   map[io.Closer]struct{}
	done   chan struct{}
}

// errClosed is the error of a driver that has ended.
var errClosed = errors.New("the gvisor-tap-vsock driver has ended")

// Start implements driver.Ports.
func (p *Ports) Start(ctx context.Context, sb driver.Sandbox, link driver.Link) error {
	if p.network.stack == nil {
		return errors.New("the gvisor-tap-vsock network is not attached")
	}
	p.ctx, p.link, p.inherited = ctx, link, sb.Inherited
	if err := p.relay.Start(ctx, sb, link); err != nil {
		return err
	}
	p.clients = clientSources{ctx: ctx, policy: &p.network.policy, child: sb.Child, ifname: link.Ifname}
	go func() {
		defer close(p.done)
		<-ctx.Done()
		p.closeAll()
	}()
	return nil
}

// Wait implements driver.Ports. The driver does not fail on its own.
func (p *Ports) Wait() error {
	<-p.done
	return p.relay.Wait()
}

// Info implements driver.Ports. Clients over IPv6 of a namespace without are led to its
// IPv4 address, where they are seen as the gateway.
//
// Loopback child addresses are allowed for dockerd, which asks for both families: it has
// only one address for them otherwise, where its userland proxies can listen once.
func (p *Ports) Info() api.PortDriverInfo {
	return api.PortDriverInfo{
		Driver: "gvisor-tap-vsock",
		Protos: []api.Proto{"tcp", "tcp4", "tcp6", "udp", "udp4", "udp6"},
	}
}

// Forward implements driver.Ports.
func (p *Ports) Forward(ctx context.Context, spec api.PortSpec) (io.Closer, error) {
	if protos := p.Info().Protos; !slices.Contains(protos, spec.Proto) {
		return nil, fmt.Errorf("protocol %q is not supported by the port driver gvisor-tap-vsock, choose one of %s",
			spec.Proto, strings.Trim(fmt.Sprint(protos), "[]"))
	}
	child, err := p.childAddr(spec.ChildIP)
	if err != nil {
		return nil, err
	}
	if p.ctx == nil || p.ctx.Err() != nil {
		return nil, errClosed
	}
	if child.IsLoopback() || child.IsValid() && (child == p.link.IPv4.Addr() || child == p.link.IPv6.Addr()) {
		return p.relay.Forward(ctx, spec)
	}
	listening, err := p.inherited.Listen(spec.Proto, spec.ParentIP, spec.ParentPort)
	if err != nil {
		return nil, err
	}
	sockets, err := shareAll(listening.FDs, string(spec.Proto))
	if err != nil {
		return nil, err
	}
	return p.keep(p.serve(spec, sockets, listening.Shared, child))
}

// childAddr is the address to forward to, invalid for the child's own.
func (p *Ports) childAddr(childIP string) (netip.Addr, error) {
	if childIP == "" {
		return netip.Addr{}, nil
	}
	addr, err := netip.ParseAddr(childIP)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("child IP: %w", err)
	}
	addr = addr.Unmap()
	switch {
	case addr.IsUnspecified():
		return netip.Addr{}, nil
	case addr.Is6() && !addr.IsLoopback() && !p.network.cfg.IPv6:
		return netip.Addr{}, fmt.Errorf("child IP %s: IPv6 needs --ipv6", addr)
	}
	return addr, nil
}

// targets are the addresses to forward to for a socket of a family, in order
// of preference.
func (p *Ports) targets(child netip.Addr, port uint16, is6 bool) []netip.AddrPort {
	if child.IsValid() {
		return []netip.AddrPort{netip.AddrPortFrom(child, port)}
	}
	own := []netip.AddrPort{netip.AddrPortFrom(p.link.IPv4.Addr(), port)}
	if is6 && p.link.IPv6.IsValid() {
		own = slices.Insert(own, 0, netip.AddrPortFrom(p.link.IPv6.Addr(), port))
	}
	return own
}

// serve starts a port on its sockets, which another process may share.
func (p *Ports) serve(spec api.PortSpec, sockets []*sharedFD, shared bool, child netip.Addr) io.Closer {
	if spec.Proto.Transport() == api.UDP {
		return p.serveUDP(spec, sockets, child)
	}
	return p.serveTCP(spec, sockets, shared, child)
}

func (p *Ports) serveTCP(spec api.PortSpec, sockets []*sharedFD, shared bool, child netip.Addr) io.Closer {
	n := p.network
	port := &tcpPort{
		log: n.log.With("port", spec.ParentPort), loop: n.loop, clients: &p.clients,
		max: int64(min(maxConnections, fdlimit.Get()/2)), listeners: sockets, shared: shared, calls: map[*call]struct{}{},
	}
	port.ctx, port.cancel = context.WithCancel(p.ctx)
	for _, s := range sockets {
		targets := p.targets(child, uint16(spec.ChildPort), familyOf(s) == unix.AF_INET6)
		port.accepting.Go(func() { port.serve(s, targets) })
	}
	return port
}

func (p *Ports) serveUDP(spec api.PortSpec, sockets []*sharedFD, child netip.Addr) io.Closer {
	port := &udpPort{published: p.network.published, sources: &p.clients, clients: map[clientKey]*udpFlow{}}
	for _, s := range sockets {
		port.sockets = append(port.sockets, &dgramSocket{sharedFD: s})
	}
	for _, s := range port.sockets {
		family := familyOf(s.sharedFD)
		is6 := family == unix.AF_INET6
		if isWildcard(s.sharedFD) {
			_ = sockio.TellLocal(s.fd, family) // both families have had it since Linux 2.6
		}
		target := p.targets(child, uint16(spec.ChildPort), is6)[0]
		port.published.open(target, origin{port: port, socket: s, is6: is6})
		port.readers.Go(func() { port.serve(s, target) })
	}
	return port
}

// shareAll takes descriptors over.
func shareAll(fds []int, name string) ([]*sharedFD, error) {
	var shared []*sharedFD
	for i, fd := range fds {
		s, err := newSharedFD(fd, name)
		if err != nil {
			for _, s := range shared {
				s.close()
			}
			sockio.CloseAll(fds[i+1:])
			return nil, err
		}
		shared = append(shared, s)
	}
	return shared, nil
}

// familyOf is the family of a socket, 0 where it is none.
func familyOf(s *sharedFD) int {
	family, _ := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	return family
}

// isWildcard reports whether a socket is bound to all addresses.
func isWildcard(s *sharedFD) bool {
	sa, err := unix.Getsockname(s.fd)
	return err == nil && sockio.FromSockaddr(sa).Addr().IsUnspecified()
}

// published is a port that closes itself out of the driver's list.
type published struct {
	io.Closer
	ports *Ports
}

// Close implements io.Closer.
func (p *published) Close() error {
	p.ports.mu.Lock()
	delete(p.ports.open, p)
	p.ports.mu.Unlock()
	return p.Closer.Close()
}

var (
	_ driver.Detailer = (*published)(nil)
	_ driver.Detailer = (*tcpPort)(nil)
	_ driver.Detailer = (*udpPort)(nil)
)

// Details implements driver.Detailer.
func (p *published) Details() api.PortDetails { return p.Closer.(driver.Detailer).Details() }

// keep lists a port, to be closed with the driver.
func (p *Ports) keep(port io.Closer) (io.Closer, error) {
	listed := &published{Closer: port, ports: p}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		port.Close()
		return nil, errClosed
	}
	p.open[listed] = struct{}{}
	p.mu.Unlock()
	return listed, nil
}

func (p *Ports) closeAll() {
	p.mu.Lock()
	p.closed = true
	open := make([]io.Closer, 0, len(p.open))
	for c := range p.open {
		open = append(open, c)
	}
	p.mu.Unlock()
	for _, c := range open {
		c.Close()
	}
}

// details are the counters as the API shows them.
func (c *counters) details(active uint64) api.PortDetails {
	d := api.PortDetails{
		Accepted: c.accepted.Load(), Refused: c.refused.Load(), Active: active,
		BytesIn: c.bytesIn.Load(), BytesOut: c.bytesOut.Load(), AcceptErrors: c.acceptErrors.Load(),
	}
	if text := c.lastError.Load(); text != nil {
		d.LastError = *text
	}
	return d
}

// Details implements driver.Detailer.
func (p *tcpPort) Details() api.PortDetails {
	return p.counters.details(uint64(p.counters.active.Load()))
}

// Details implements driver.Detailer.
func (p *udpPort) Details() api.PortDetails { return p.counters.details(p.active()) }
