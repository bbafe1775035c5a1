package bypass

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
	"rootlesskit/internal/driver/relayed"
	"rootlesskit/internal/hostsock"
	"rootlesskit/internal/netns"
	"rootlesskit/internal/relay"
	"rootlesskit/internal/seccomp"
)

// container is a container that has ports of its own, in a network namespace
// within the child's. The namespace is known when its runtime has sent the
// listener of the container's filter. A port waits for that, and then is relayed
// to the container's address until it is native.
type container struct {
	driver *Ports
	// ctx ends the pools, with the container.
	ctx    context.Context
	cancel context.CancelFunc

	mu    sync.Mutex
	pid   int // of its first process, as the child sees it; 0: not known yet
	pools map[poolKey]*relay.Pool
	ports []io.Closer
	tcp   []*port
}

type poolKey struct{ sockType, family int }

func newContainer(p *Ports) *container {
	c := &container{driver: p, pools: map[poolKey]*relay.Pool{}}
	c.ctx, c.cancel = context.WithCancel(p.ctx)
	return c
}

// publish publishes ports, or none.
func (c *container) publish(specs []api.PortSpec) error {
	for _, spec := range specs {
		err := spec.Validate()
		if err == nil {
			err = c.forward(spec)
		}
		if err != nil {
			c.close()
			return err
		}
	}
	return nil
}

// close ends the ports and all that the container has.
func (c *container) close() {
	for _, p := range c.ports {
		_ = p.Close()
	}
	c.cancel()
	c.mu.Lock()
	pools := c.pools
	c.pools = map[poolKey]*relay.Pool{}
	c.mu.Unlock()
	for _, pool := range pools { // not under the lock, which a filler may want
		pool.Wait()
	}
}

func (c *container) forward(spec api.PortSpec) error {
	if strings.HasPrefix(spec.Proto, "udp") {
		return c.forwardUDP(spec)
	}
	base, err := hostsock.ListenBase(spec.Proto, spec.ParentIP, spec.ParentPort)
	if err != nil {
		return err
	}
	t := &port{
		driver: c.driver, container: c, base: base,
		target: netip.AddrPortFrom(netip.Addr{}, uint16(spec.ChildPort)),
		why:    errors.New("no server has bound the port since it was published"),
	}
	r := t.wrap(containerRouter{c, unix.SOCK_STREAM, uint16(spec.ChildPort)})
	t.relayed, err = c.driver.ForwardTCP(relay.TCPConfig{
		Listeners: []int{base.FD},
		Pool:      c.driver.hostPool, // a way has its own
		Route:     r.Route,
		Resolve:   r.Resolve,
	})
	if err != nil {
		return err
	}
	c.ports, c.tcp = append(c.ports, t), append(c.tcp, t)
	return nil
}

func (c *container) forwardUDP(spec api.PortSpec) error {
	sockets, err := hostsock.Listen(spec.Proto, spec.ParentIP, spec.ParentPort)
	if err != nil {
		return err
	}
	r := containerRouter{c, unix.SOCK_DGRAM, uint16(spec.ChildPort)}
	port, err := c.driver.ForwardUDP(relay.UDPConfig{
		Sockets: sockets,
		Pool:    func(family int) *relay.Pool { return c.pool(unix.SOCK_DGRAM, family) },
		Route:   r.Route,
		Resolve: r.Resolve,
	})
	if err != nil {
		return err
	}
	c.ports = append(c.ports, port)
	return nil
}

// published are the TCP ports that lead to a port of the container.
func (c *container) published(number uint16) []*port {
	var found []*port
	for _, t := range c.tcp {
		if t.target.Port() == number {
			found = append(found, t)
		}
	}
	return found
}

// details are those of the TCP ports.
func (c *container) details() (all []api.PortDetails) {
	for _, p := range c.ports {
		if d, ok := p.(driver.Detailer); ok {
			all = append(all, d.Details())
		}
	}
	return all
}

func (c *container) pidOrZero() int {
	if c == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pid
}

// stay notes why none of the ports becomes native.
func (c *container) stay(why error) {
	for _, t := range c.tcp {
		t.stay(why)
	}
}

// supervise takes over the listener of the container's filter. ended is called
// when its last process has ended.
func (c *container) supervise(fd, pid int, native bool, ended func()) error {
	l, err := seccomp.NewListener(fd)
	if err != nil {
		return err
	}
	cookie, err := c.enter(pid)
	if err != nil {
		c.driver.letGo(l, ended)
		return err
	}
	if why := c.driver.containersRelayed(); why != nil || !native {
		if why == nil {
			why = errors.New("the container tool wants no native ports (ignoreBind)")
		}
		c.stay(why)
		c.driver.letGo(l, ended)
		return nil
	}
	s := &session{driver: c.driver, netns: cookie, published: c.published}
	c.driver.run(s, l, func(error) { ended() })
	return nil
}

// letGo lets all that a container asks about go on: without an answerer, it would
// fail.
func (p *Ports) letGo(l *seccomp.Listener, ended func()) {
	none := func(uint16) []*port { return nil }
	p.run(&session{driver: p, published: none}, l, func(error) { ended() })
}

// containersRelayed says why no container has native ports; nil: they may.
func (p *Ports) containersRelayed() error {
	switch why := p.available(); {
	case why != nil:
		return why
	case p.isolate:
		return errors.New("--disable-host-loopback: nothing keeps a container from connecting a socket of the host, its Landlock is not ours")
	}
	return nil
}

// enter learns the container's namespace.
func (c *container) enter(pid int) (cookie uint64, err error) {
	if cookie, err = c.driver.cookieOf(c.ctx, pid); err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pid = pid
	return cookie, nil
}

// pool has sockets of the container's namespace.
func (c *container) pool(sockType, family int) *relay.Pool {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := poolKey{sockType, family}
	pool := c.pools[key]
	if pool == nil {
		pool = relay.NewPool(c.ctx, hostPoolSize, func(ctx context.Context, n int) ([]int, error) {
			pid := c.pidOrZero()
			if pid == 0 {
				return nil, errors.New("the container has not started")
			}
			return netns.Sockets(ctx, c.driver.sb.Child, netns.SocketRequest{Family: family, Type: sockType, Count: n, PID: pid})
		}, c.driver.log())
		c.pools[key] = pool
	}
	return pool
}

// containerRouter leads to the container's own address, from which its clients
// seem to come: the way back to theirs would be the container's to arrange.
type containerRouter struct {
	c        *container
	sockType int
	port     uint16
}

var _ relayed.Router = containerRouter{}

// Route implements relayed.Router: the address may be new.
func (r containerRouter) Route(_, _ netip.AddrPort) relay.Route { return relay.Route{} }

// Resolve implements relayed.Router.
func (r containerRouter) Resolve(client, _ netip.AddrPort) relay.Route {
	pid := r.c.pidOrZero()
	if pid == 0 {
		return relay.Route{}
	}
	ns, err := look(r.c.ctx, r.c.driver.sb.Child, pid) // the network may have come later
	to := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	switch {
	case err != nil:
		return relay.Route{}
	case len(ns.Addrs) > 0:
		to = ns.Addrs[0]
	case !client.Addr().Unmap().IsLoopback():
		return relay.Route{} // it would seem to be loopback
	}
	route := relay.Route{Target: netip.AddrPortFrom(to, r.port)}
	if len(ns.Addrs) > 0 {
		route.Source = netip.AddrPortFrom(to, 0)
	}
	if r.sockType == unix.SOCK_STREAM {
		route.Pool = r.c.pool(r.sockType, relay.FamilyOf(to))
	}
	return route
}

// Reroute implements relayed.Router.
func (r containerRouter) Reroute(_, _ netip.AddrPort, _ error) (relay.Route, bool) {
	return relay.Route{}, false
}

// parseMappings reads the ports of a listener's metadata, as --publish has them,
// with commas.
func parseMappings(metadata string) (specs []api.PortSpec, err error) {
	for s := range strings.SplitSeq(metadata, ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		spec, err := api.ParsePortSpec(s)
		if err != nil {
			return nil, fmt.Errorf("listenerMetadata: %w", err)
		}
		specs = append(specs, spec)
	}
	return specs, nil
}
