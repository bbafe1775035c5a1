package bypass

import (
	"errors"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/driver/bypass/containers"
	"rootlesskit/internal/driver/bypass/fdswap"
	"rootlesskit/internal/hostsock"
	"rootlesskit/internal/netns"
	"rootlesskit/internal/publish"
	"rootlesskit/internal/relay"
	"rootlesskit/internal/sockio"
)

// port is a published TCP port.
type port struct {
	driver  *Ports
	base    hostsock.Base
	target  netip.AddrPort
	relayed *publish.Port
	// guest is the container whose port it is; nil: the launcher's namespace's.
	guest containers.Guest
	// fronted says that there are natives, for the relay's loops.
	fronted atomic.Bool

	// binding is held by the bind that wants mu: it is its turn.
	binding sync.Mutex
	// closing says that binds come too late.
	closing atomic.Bool

	mu        sync.Mutex
	closed    bool
	natives   []native
	refreshed time.Time
	why       error // the port is not native
}

// native is a socket of the host that a server has. No descriptor of it is kept:
// the port would stay bound when the server has ended.
type native struct {
	inode     uint64
	family    int
	v6Only    bool // as the server asked for
	listening bool
	// The process that bound it, and its descriptor.
	pid, fd int
	// shadow has the address in the namespace that the server believes to have.
	shadow *publish.Port
}

// Details implements driver.Detailer.
func (p *port) Details() api.PortDetails {
	d := p.relayed.Details()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refresh()
	d.State = api.PortNative
	if len(p.natives) == 0 {
		d.State, d.StateReason = api.PortRelay, p.reason().Error()
	}
	return d
}

func (p *port) reason() error {
	if why := p.driver.why(); why != nil && p.guest == nil {
		return why
	}
	return p.why
}

// refresh forgets the natives whose server has ended, and leads connections to
// those that are left. The kernel is asked: its own events would slow down every
// connection of the host.
func (p *port) refresh() {
	if len(p.natives) == 0 {
		return
	}
	// In this order: a server may begin to listen and close its first descriptor.
	held := make([]bool, len(p.natives))
	for i, n := range p.natives {
		held[i] = fdswap.Holds(n.pid, n.fd, n.inode)
	}
	listening, err := netns.Inodes(p.base.Addr.Port(), false)
	if err != nil {
		p.driver.log().Debug("the sockets of a port could not be listed", "error", err)
		return
	}
	var left, ended []native
	for i, n := range p.natives {
		n.listening = listening[n.inode]
		if n.listening || held[i] {
			left = append(left, n)
		} else {
			ended = append(ended, n)
		}
	}
	if len(left) > 1 || len(ended) > 0 {
		defer p.steer(nil)
	}
	p.setNatives(left)
	p.refreshed = time.Now()
	for _, n := range ended {
		_ = n.shadow.Close()
		p.why = errEnded
	}
}

// hasNatives reports whether there are natives, as seen a moment ago at the earliest:
// many may ask.
func (p *port) hasNatives() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.refreshed) >= refreshPause {
		p.refresh()
	}
	return len(p.natives) > 0
}

const refreshPause = 10 * time.Millisecond

var errEnded = errors.New("the server has ended")

func (p *port) setNatives(natives []native) {
	p.natives = natives
	p.fronted.Store(len(natives) > 0)
}

// steer leads connections to the natives, and to one that is about to be. They
// count also where they do not listen yet: the kernel spreads over those that do.
func (p *port) steer(next *native) {
	if p.driver.ctx.Err() != nil {
		return // the relay has closed the base
	}
	n, v6, v4 := 0, false, false
	for _, native := range p.natives {
		if native.family == p.base.Family {
			n++
			v6, v4 = v6 || native.v6Only, v4 || !native.v6Only
		}
	}
	if next != nil && next.family == p.base.Family {
		n++
		v6, v4 = v6 || next.v6Only, v4 || !next.v6Only
	}
	if err := p.base.Steer(n, v6 && !v4 && p.base.Dual); err != nil {
		p.driver.log().Warn("a native port shares its connections with the relay", "error", err)
	}
}

// Close implements io.Closer. The servers' sockets no longer listen afterwards,
// which they notice as EINVAL of accept(2), and their connections are cut.
func (p *port) Close() error {
	p.driver.leave(p)
	p.closing.Store(true)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed = true
		p.cut()
	}
	return p.relayed.Close()
}

// cut ends the natives and their connections.
func (p *port) cut() {
	p.refresh()
	if len(p.natives) == 0 {
		return
	}
	// Twice: a server may have accepted in between.
	for _, all := range []bool{false, true} {
		inodes, err := netns.Inodes(p.base.Addr.Port(), all)
		if err != nil {
			p.driver.log().Warn("the connections of a port could not be listed, and go on", "error", err)
		}
		fdswap.ShutDown(inodes)
	}
	for _, n := range p.natives {
		_ = n.shadow.Close()
	}
	p.setNatives(nil)
}

// wrap has the relay ask about connections that come to it although there are
// natives.
func (p *port) wrap(inner relay.Router) relay.Router { return &router{inner, p} }

type router struct {
	relay.Router
	port *port
}

// Route implements relay.Router.
func (r *router) Route(client, local netip.AddrPort) relay.Route {
	if r.port.fronted.Load() {
		return relay.Route{}
	}
	return r.Router.Route(client, local)
}

// Resolve implements relay.Router.
func (r *router) Resolve(client, local netip.AddrPort) relay.Route {
	route, native := r.port.toNative(client, local)
	if native {
		return route
	}
	return r.Router.Resolve(client, local)
}

// toNative is the way of a connection to the relay while there are natives. Such
// are those of another family than the servers', and those that came just when one
// of several ended. The server sees this host as its client then, and never
// loopback for one that is not. false: there are no natives any more.
func (p *port) toNative(client, local netip.AddrPort) (relay.Route, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refresh()
	if len(p.natives) == 0 {
		return relay.Route{}, false
	}
	for _, n := range p.natives {
		if n.listening {
			return p.hostRoute(n, client.Addr().Unmap(), local.Addr().Unmap()), true
		}
	}
	return relay.Route{}, true // refused, as by any address where nobody listens
}

// hostRoute leads to the host's address of a native.
func (p *port) hostRoute(n native, client, local netip.Addr) relay.Route {
	to := p.base.Addr.Addr()
	v4 := to.Is4() || n.family == unix.AF_INET || client.Is4() && !n.v6Only
	if to.IsUnspecified() {
		to = netip.IPv6Loopback()
		if v4 {
			to = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
	}
	route := relay.Route{Target: netip.AddrPortFrom(to, p.base.Addr.Port())}
	if !client.IsLoopback() {
		source := local
		if source.Is4() != to.Is4() || source.IsLoopback() || source.IsUnspecified() {
			source = publish.HostIPv4()
		}
		if !source.IsValid() || source.Is4() != to.Is4() {
			return relay.Route{} // there is no address to show
		}
		route.Source = netip.AddrPortFrom(source.WithZone(""), 0)
	}
	route.Pool = p.driver.hostPool(sockio.Family(to))
	return route
}

// startShadow listens in the place of the server, for clients in the namespace, on
// a copy of the socket that it gave up.
func (p *port) startShadow(s *fdswap.Socket, n *native) error {
	fd, err := unix.FcntlInt(uintptr(s.FD), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	if err = unix.Listen(fd, shadowBacklog); err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		unix.Close(fd)
		return os.NewSyscallError("listen", err)
	}
	family := unix.AF_INET6
	if p.base.Addr.Addr().Is4() || n.family == unix.AF_INET {
		family = unix.AF_INET
	}
	of := *n
	n.shadow, err = p.driver.ForwardTCP(relay.TCPConfig{
		Listeners: []int{fd},
		Family:    family,
		Pool:      p.driver.hostPool,
		Router: relay.RouteFunc(func(client, _ netip.AddrPort) relay.Route {
			route := p.hostRoute(of, client.Addr().Unmap(), netip.IPv4Unspecified())
			route.Pool = nil
			return route
		}),
	})
	return err
}

const shadowBacklog = 128
