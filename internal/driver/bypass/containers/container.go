package containers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/driver"
	"rootlesskit/internal/netns"
	"rootlesskit/internal/relay"
	"rootlesskit/internal/seccomp"
	"rootlesskit/internal/sockio"
)

// container is a container with ports of its own, in a network namespace of its own,
// which is known once its runtime has handed over the first process.
type container struct {
	all    *Containers
	ctx    context.Context
	cancel context.CancelFunc
	// native says that the container tool allows native ports.
	native bool
	ports  []published
	// processes counts the processes that were handed over and have not ended, and
	// refused says that the ports could not be published. Containers.mu guards both.
	processes int
	refused   bool

	mu    sync.Mutex
	place *place // nil: not known yet
}

// published is a port in the table.
type published struct {
	id   int
	port io.Closer
}

var _ Guest = (*container)(nil)

func (cs *Containers) newContainer(native bool) *container {
	c := &container{all: cs, native: native}
	c.ctx, c.cancel = context.WithCancel(cs.ctx)
	return c
}

// publish publishes ports, or none.
func (c *container) publish(specs []api.PortSpec) error {
	for _, spec := range specs {
		if err := c.publishOne(spec); err != nil {
			c.close()
			return err
		}
	}
	return nil
}

func (c *container) publishOne(spec api.PortSpec) error {
	var port io.Closer
	r := &router{container: c, spec: spec, udp: spec.Proto.Transport() == api.UDP}
	status, err := c.all.sb.Table.PublishBy(c.ctx, spec, func(context.Context, api.PortSpec) (_ io.Closer, err error) {
		port, err = c.all.driver.ForwardTo(c, spec, r)
		return port, err
	})
	if err != nil {
		return err
	}
	c.ports = append(c.ports, published{status.ID, port})
	return nil
}

// close closes the ports, and all else that is here for the container.
func (c *container) close() {
	for _, p := range c.ports {
		// An error says that somebody else has removed the port already.
		_ = c.all.sb.Table.Unpublish(context.WithoutCancel(c.ctx), p.id)
	}
	c.cancel()
	c.move(nil)
}

// details returns the details of the ports, in the order of the specs.
func (c *container) details() (all []api.PortDetails) {
	for _, p := range c.ports {
		if d, ok := p.port.(driver.Detailer); ok {
			all = append(all, d.Details())
		}
	}
	return all
}

// take serves a process of the container. ended is called when that process has ended,
// and all that it has started.
func (c *container) take(s state, l *seccomp.Listener, ended func()) error {
	if err := c.enter(s.first()); err != nil {
		c.all.driver.PassThrough(l, ended)
		return fmt.Errorf("finding the network of the container %q: %w", s.State.ID, err)
	}
	why := c.all.driver.NoNative()
	if why == nil && !c.native {
		why = errors.New("the container tool wants no native ports (ignoreBind)")
	}
	if why != nil {
		c.all.driver.FallBack(c, why)
		c.all.driver.PassThrough(l, ended)
		return nil
	}
	c.all.driver.Answer(l, c, ended)
	return nil
}

// place is the network namespace of a container.
type place struct {
	pid   int    // of the container's first process, as the child sees it
	netns uint64 // its cookie, where the kernel tells it
	// ctx ends the pools.
	ctx    context.Context
	cancel context.CancelFunc

	mu    sync.Mutex
	pools map[poolKey]*relay.Pool
}

type poolKey struct{ sockType, family int }

// enter finds the network namespace by the container's first process. A container
// that was restarted has a new namespace.
func (c *container) enter(pid int) error {
	if c.PID() == pid {
		return nil
	}
	cookie, err := c.all.driver.NetnsOf(c.ctx, pid)
	if err != nil && !errors.Is(err, unix.ENOPROTOOPT) { // namespaces have none before Linux 5.14
		return err
	}
	p := &place{pid: pid, netns: cookie, pools: map[poolKey]*relay.Pool{}}
	p.ctx, p.cancel = context.WithCancel(c.ctx)
	c.move(p)
	return nil
}

// move replaces the place.
func (c *container) move(to *place) {
	c.mu.Lock()
	old := c.place
	c.place = to
	c.mu.Unlock()
	if old != nil {
		old.close()
	}
}

func (c *container) where() *place {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.place
}

// PID implements Guest.
func (c *container) PID() int {
	if p := c.where(); p != nil {
		return p.pid
	}
	return 0
}

// Netns implements Guest.
func (c *container) Netns() uint64 {
	if p := c.where(); p != nil {
		return p.netns
	}
	return 0
}

func (p *place) close() {
	p.cancel()
	p.mu.Lock()
	pools := p.pools
	p.pools = map[poolKey]*relay.Pool{}
	p.mu.Unlock()
	for _, pool := range pools { // without the lock, which a pool may need to end
		pool.Wait()
	}
}

// poolSize is small: most connections are made from the launcher's namespace.
const poolSize = 16

// pool returns the pool of sockets in the container's namespace of a type and family.
func (c *container) pool(p *place, sockType, family int) *relay.Pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := poolKey{sockType, family}
	pool := p.pools[key]
	if pool == nil {
		sb := c.all.sb
		pool = relay.NewPool(p.ctx, poolSize, func(ctx context.Context, n int) ([]int, error) {
			fds, err := netns.Sockets(ctx, sb.Child, netns.SocketRequest{Family: family, Type: sockType, Count: n, PID: p.pid})
			if err != nil {
				return nil, err
			}
			return p.own(fds)
		}, sb.Log)
		p.pools[key] = pool
	}
	return pool
}

// own returns the sockets, or closes them where they are of another namespace: the
// number of a process that has ended may be another process's by now.
func (p *place) own(fds []int) ([]int, error) {
	if p.netns == 0 {
		return fds, nil
	}
	cookie, err := netns.Cookie(fds[0])
	if err == nil && cookie == p.netns {
		return fds, nil
	}
	sockio.CloseAll(fds)
	return nil, fmt.Errorf("the first process of the container (PID %d) has ended", p.pid)
}

// parseMappings reads the ports in a listener's metadata: port specs as --publish
// has them, separated by commas.
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
