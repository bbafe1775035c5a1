package bypass

import (
	"errors"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/driver/bypass/containers"
	"rootlesskit/internal/driver/relayed"
	"rootlesskit/internal/hostsock"
	"rootlesskit/internal/netns"
	"rootlesskit/internal/relay"
)

// port is a published TCP port.
type port struct {
	driver  *Ports
	base    hostsock.Base
	target  netip.AddrPort
	relayed *relayed.Port
	// guest is the container whose port it is; nil: the launcher's namespace's.
	guest containers.Guest
	// fronted says that there are natives, for the relay's loops.
	fronted atomic.Bool

	mu      sync.Mutex
	closed  bool
	natives []native
	why     error // the port is not native
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
	shadow *relayed.Port
}

// Details implements driver.Detailer.
func (t *port) Details() api.PortDetails {
	d := t.relayed.Details()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refresh()
	d.State = api.PortNative
	if len(t.natives) == 0 {
		d.State, d.StateReason = api.PortRelay, t.reason().Error()
	}
	return d
}

func (t *port) reason() error {
	if why := t.driver.why(); why != nil && t.guest == nil {
		return why
	}
	return t.why
}

// refresh forgets the natives whose server has ended, and leads connections to
// those that are left. The kernel is asked: its own events would slow down every
// connection of the host.
func (t *port) refresh() {
	if len(t.natives) == 0 {
		return
	}
	// In this order: a server may begin to listen and close its first descriptor.
	held := make([]bool, len(t.natives))
	for i, n := range t.natives {
		held[i] = holds(n.pid, n.fd, n.inode)
	}
	listening, err := netns.Inodes(t.base.Addr.Port(), false)
	if err != nil {
		t.driver.log().Debug("the sockets of a port could not be listed", "error", err)
		return
	}
	var left, ended []native
	for i, n := range t.natives {
		n.listening = listening[n.inode]
		if n.listening || held[i] {
			left = append(left, n)
		} else {
			ended = append(ended, n)
		}
	}
	if len(left) > 1 || len(ended) > 0 {
		defer t.steer(nil)
	}
	t.setNatives(left)
	for _, n := range ended {
		_ = n.shadow.Close()
		t.why = errEnded
	}
}

var errEnded = errors.New("the server has ended")

func (t *port) setNatives(natives []native) {
	t.natives = natives
	t.fronted.Store(len(natives) > 0)
}

// steer leads connections to the natives, and to one that is about to be. They
// count also where they do not listen yet: the kernel spreads over those that do.
func (t *port) steer(next *native) {
	if t.driver.ctx.Err() != nil {
		return // the relay has closed the base
	}
	n, v6, v4 := 0, false, false
	for _, native := range t.natives {
		if native.family == t.base.Family {
			n++
			v6, v4 = v6 || native.v6Only, v4 || !native.v6Only
		}
	}
	if next != nil && next.family == t.base.Family {
		n++
		v6, v4 = v6 || next.v6Only, v4 || !next.v6Only
	}
	if err := t.base.Steer(n, v6 && !v4 && t.base.Dual); err != nil {
		t.driver.log().Warn("a native port shares its connections with the relay", "error", err)
	}
}

// Close implements io.Closer. The servers' sockets no longer listen afterwards,
// which they notice as EINVAL of accept(2), and their connections are cut.
func (t *port) Close() error {
	t.driver.leave(t)
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.closed = true
		t.cut()
	}
	return t.relayed.Close()
}

// cut ends the natives and their connections.
func (t *port) cut() {
	t.refresh()
	if len(t.natives) == 0 {
		return
	}
	// Twice: a server may have accepted in between.
	for _, all := range []bool{false, true} {
		inodes, err := netns.Inodes(t.base.Addr.Port(), all)
		if err != nil {
			t.driver.log().Warn("the connections of a port could not be listed, and go on", "error", err)
		}
		shutdownAll(inodes)
	}
	for _, n := range t.natives {
		_ = n.shadow.Close()
	}
	t.setNatives(nil)
}

// wrap has the relay ask about connections that come to it although there are
// natives.
func (t *port) wrap(inner relayed.Router) relayed.Router { return &router{inner, t} }

type router struct {
	relayed.Router
	port *port
}

// Route implements relayed.Router.
func (r *router) Route(client, local netip.AddrPort) relay.Route {
	if r.port.fronted.Load() {
		return relay.Route{}
	}
	return r.Router.Route(client, local)
}

// Resolve implements relayed.Router.
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
func (t *port) toNative(client, local netip.AddrPort) (relay.Route, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refresh()
	if len(t.natives) == 0 {
		return relay.Route{}, false
	}
	for _, n := range t.natives {
		if n.listening {
			return t.hostRoute(n, client.Addr().Unmap(), local.Addr().Unmap()), true
		}
	}
	return relay.Route{}, true // refused, as by any address where nobody listens
}

// hostRoute leads to the host's address of a native.
func (t *port) hostRoute(n native, client, local netip.Addr) relay.Route {
	to := t.base.Addr.Addr()
	v4 := to.Is4() || n.family == unix.AF_INET || client.Is4() && !n.v6Only
	if to.IsUnspecified() {
		to = netip.IPv6Loopback()
		if v4 {
			to = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
	}
	route := relay.Route{Target: netip.AddrPortFrom(to, t.base.Addr.Port())}
	if !client.IsLoopback() {
		source := local
		if source.Is4() != to.Is4() || source.IsLoopback() {
			source = relayed.HostIPv4()
		}
		if !source.IsValid() || source.Is4() != to.Is4() {
			return relay.Route{} // there is no address to show
		}
		route.Source = netip.AddrPortFrom(source.WithZone(""), 0)
	}
	route.Pool = t.driver.hostPool(relay.FamilyOf(to))
	return route
}

// startShadow listens in the place of the server, for clients in the namespace, on
// a copy of the socket that it gave up.
func (t *port) startShadow(s *socket, n *native) error {
	fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
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
	if t.base.Addr.Addr().Is4() || n.family == unix.AF_INET {
		family = unix.AF_INET
	}
	of := *n
	n.shadow, err = t.driver.ForwardTCP(relay.TCPConfig{
		Listeners: []int{fd},
		Family:    family,
		Pool:      t.driver.hostPool,
		Route: func(client, _ netip.AddrPort) relay.Route {
			route := t.hostRoute(of, client.Addr().Unmap(), netip.IPv4Unspecified())
			route.Pool = nil
			return route
		},
	})
	return err
}

const shadowBacklog = 128
