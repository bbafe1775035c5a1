// Package containers serves the ports of containers that have filters of their own,
// instead of the launcher's: containers that a tool announces (rest.go), and containers
// whose seccomp profile names the launcher's socket (handover.go).
//
// Theory of operation. A runtime connects to a socket and hands over the listener of a
// container's filter: once for the first process of the container, and once for each
// process that is executed in it later. The container has its own network namespace,
// and ports that lead there. A router leads to the container's address (route.go)
// until the port driver, which answers the listener, makes the ports native.
package containers

import (
	"context"
	"io"
	"net/netip"
	"path/filepath"
	"sync"

	"rootlesskit/api"
	"rootlesskit/internal/driver"
	"rootlesskit/internal/relay"
	"rootlesskit/internal/seccomp"
)

// Driver is what containers need of the port driver.
type Driver interface {
	// RouterTo returns a router to an address that the launcher's namespace
	// reaches.
	RouterTo(udp bool, to netip.AddrPort, proxyHeader bool) relay.Router
	// ForwardTo opens a port of a container: native where that is possible, else r
	// leads its connections to the container.
	ForwardTo(g Guest, spec api.PortSpec, r relay.Router) (io.Closer, error)
	// FallBack notes why the ports of a container do not become native.
	FallBack(g Guest, why error)
	// NoNative says why no container has native ports; nil: they can have them.
	NoNative() error
	// NetnsOf returns the cookie of the network namespace of a process, as the child
	// sees it.
	NetnsOf(ctx context.Context, pid int) (uint64, error)
	// Answer answers the calls of a container; nil stands for the launcher's own
	// namespace. It returns at once, and calls ended when the last process with the
	// filter has ended.
	Answer(l *seccomp.Listener, g Guest, ended func())
	// PassThrough is Answer that passes every call through to the kernel: if nobody
	// answered, the calls would fail.
	PassThrough(l *seccomp.Listener, ended func())
}

// Guest is a container, for the port driver.
type Guest interface {
	// PID is that of the container's first process, as the child sees it; 0: it has
	// not started.
	PID() int
	// Netns is the cookie of its network namespace; 0: it has not started.
	Netns() uint64
}

// Containers are the containers whose ports are published.
type Containers struct {
	driver Driver
	ctx    context.Context
	sb     driver.Sandbox
	uplink string
	// work are the goroutines that listen to runtimes.
	work sync.WaitGroup

	mu      sync.Mutex
	ended   bool
	unnamed map[identity]*container
	named   map[string]*named
}

// identity identifies a container that no tool has announced. The ID is not enough: a
// runtime may use it again for another container.
type identity struct {
	id    string
	first int
}

// New returns a Containers without any. Start comes next.
func New(d Driver) *Containers {
	return &Containers{driver: d, unnamed: map[identity]*container{}, named: map[string]*named{}}
}

// socketName is the listenerPath, in the state directory, of containers that no tool
// announces. Their ports are in the listener's metadata. A container without ports is
// in the launcher's network namespace.
const socketName = "bypass4netns.sock"

// Start listens for runtimes until ctx ends. Container tools may announce containers
// even where it fails. uplink is the interface of the network driver.
func (cs *Containers) Start(ctx context.Context, sb driver.Sandbox, uplink string) error {
	cs.ctx, cs.sb, cs.uplink = ctx, sb, uplink
	cs.work.Go(func() {
		<-ctx.Done()
		cs.end()
	})
	return cs.listen(ctx, filepath.Join(sb.StateDir, socketName), cs.takeUnnamed)
}

// Wait waits until everything has ended, after Start's context.
func (cs *Containers) Wait() { cs.work.Wait() }

// end closes the ports of all containers: a container may outlive the launcher, and
// keep the sockets of the host that it has.
func (cs *Containers) end() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.ended = true
	for _, c := range cs.unnamed {
		c.close()
	}
	for _, n := range cs.named {
		n.close()
	}
}

// takeUnnamed serves a process of a container that no tool has announced.
func (cs *Containers) takeUnnamed(s state, l *seccomp.Listener) error {
	specs, err := parseMappings(s.Metadata)
	if err == nil && len(specs) == 0 {
		cs.takeShared(l)
		return nil
	}
	id := identity{s.State.ID, s.first()}
	c, err := cs.enter(id, specs, err)
	if c == nil {
		cs.driver.PassThrough(l, func() {})
		return err
	}
	leave := func() { cs.leave(id, c) }
	if err != nil || c.refused {
		cs.driver.PassThrough(l, leave)
		return err
	}
	return c.take(s, l, leave)
}

// takeShared serves a process of a container in the launcher's network namespace: the
// launcher's ports are its ports.
func (cs *Containers) takeShared(l *seccomp.Listener) {
	if cs.driver.NoNative() != nil {
		cs.driver.PassThrough(l, func() {})
		return
	}
	cs.driver.Answer(l, nil, func() {})
}

// enter counts a process of a container; leave is its counterpart. The first process
// causes the ports to be published, and only for it an error is returned. Where the
// ports cannot be published, the container has none. After the end, enter returns nil.
func (cs *Containers) enter(id identity, specs []api.PortSpec, err error) (*container, error) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.ended {
		return nil, nil
	}
	if c := cs.unnamed[id]; c != nil {
		c.processes++
		return c, nil
	}
	c := cs.newContainer(true)
	c.processes = 1
	cs.unnamed[id] = c
	if err == nil {
		err = c.publish(specs)
	}
	c.refused = err != nil
	return c, err
}

func (cs *Containers) leave(id identity, c *container) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if c.processes--; c.processes == 0 {
		delete(cs.unnamed, id)
		c.close()
	}
}
