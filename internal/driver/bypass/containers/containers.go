// Package containers takes in containers whose filter is not the launcher's own:
// those that a container tool asks for (rest.go), and those whose seccomp profile
// names the launcher's socket (handover.go).
//
// Theory of operation. A runtime connects to a socket and hands the listener of a
// container's filter over, once for the first process of the container, and once
// for each process that is executed in it later. All of them are the container's.
// It has its own network namespace, and ports that lead there. The ports are
// relayed to the container's address (route.go) until the port driver makes them
// native: it answers the listener.
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
	// ForwardTo opens a port of a container: native where that is possible, else
	// relayed by r.
	ForwardTo(g Guest, spec api.PortSpec, r relay.Router) (io.Closer, error)
	// Stay notes why the ports of a container do not become native.
	Stay(g Guest, why error)
	// Relaying says why no container has native ports; nil: they may have.
	Relaying() error
	// NetnsOf returns the cookie of the network namespace of a process, as the child
	// sees it.
	NetnsOf(ctx context.Context, pid int) (uint64, error)
	// Answer answers the calls of a container; nil stands for the launcher's own
	// namespace. It returns at once, and calls ended when the last process with the
	// filter has ended.
	Answer(l *seccomp.Listener, g Guest, ended func())
	// LetGo is Answer that lets every call continue: without anybody who answers,
	// the calls would fail.
	LetGo(l *seccomp.Listener, ended func())
}

// Guest is a container, for the port driver.
type Guest interface {
	// PID is that of the container's first process, as the child sees it; 0: it has
	// not started.
	PID() int
	// Netns is the cookie of its network namespace; 0: it has not started.
	Netns() uint64
}

// Containers are those that have been taken in.
type Containers struct {
	driver Driver
	ctx    context.Context
	sb     driver.Sandbox
	uplink string
	// work are the goroutines that take containers in.
	work sync.WaitGroup

	mu      sync.Mutex
	ended   bool
	unnamed map[identity]*container
	named   map[string]*named
}

// identity tells containers apart that nobody has named before: a runtime may use
// the ID again for another container.
type identity struct {
	id    string
	first int
}

// New returns containers that Start begins to take in.
func New(d Driver) *Containers {
	return &Containers{driver: d, unnamed: map[identity]*container{}, named: map[string]*named{}}
}

// socketName is the listenerPath, in the state directory, for containers without a
// name. Their ports are in the listener's metadata; without ports, they live in the
// launcher's namespace.
const socketName = "bypass4netns.sock"

// Start listens for containers until ctx ends. Whether that fails or not, container
// tools may ask for more. uplink is the interface of the network driver.
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

// end closes the ports of all containers, which may outlive the launcher with the
// sockets of the host that they have.
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

// takeUnnamed takes a process of a container in that nobody has named before.
func (cs *Containers) takeUnnamed(s state, l *seccomp.Listener) error {
	specs, err := parseMappings(s.Metadata)
	if err == nil && len(specs) == 0 {
		cs.takeShared(l)
		return nil
	}
	id := identity{s.State.ID, s.first()}
	c, err := cs.enter(id, specs, err)
	if c == nil {
		cs.driver.LetGo(l, func() {})
		return err
	}
	leave := func() { cs.leave(id, c) }
	if err != nil || c.refused {
		cs.driver.LetGo(l, leave)
		return err
	}
	return c.take(s, l, leave)
}

// takeShared takes a container in that lives in the launcher's namespace, whose
// ports are its.
func (cs *Containers) takeShared(l *seccomp.Listener) {
	if cs.driver.Relaying() != nil {
		cs.driver.LetGo(l, func() {})
		return
	}
	cs.driver.Answer(l, nil, func() {})
}

// enter counts a process of a container, with leave as its counterpart. The first one
// has the ports published; the error is for that one alone. Where the ports cannot
// be published, the container has none. It returns nil after the end.
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
