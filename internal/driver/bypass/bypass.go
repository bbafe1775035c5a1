// Package bypass is the port driver with native ports: a server of the
// namespace that binds a published TCP port gets a socket of the host in place of
// its own, and serves its clients without anything of ours in between.
//
// Theory of operation. The driver is the relay (package relayed), and something
// in front of it that may fail at any time:
//
//	                     +-- in front: the server's socket, made in the host
//	client -> host port -+
//	                     +-- base: the relay's listener -> pooled socket -> server
//
// A seccomp filter stops the command, and all that it starts, at bind(2), and this
// process decides (answer.go, bind.go). For a published port it makes a socket of
// the host like the one to be bound, binds it to the published address, and puts
// it in the place of the other in the table of descriptors of the process
// (swap.go). Both the relay's listener and the server's socket have the address by
// SO_REUSEPORT; the kernel leads connections to the server's while it listens, and
// to the relay's at once when it does not (hostsock.Base). So no connection waits
// for us to notice, and the port is never anybody else's.
//
// The socket that the server gave up is bound, where the server believes to be, to
// the namespace's address. It becomes the shadow (port.go): a listener whose
// connections are relayed to the host's port, for clients in the namespace.
//
// Under --disable-host-loopback a socket of the host must not be connected from
// inside. connect(2) is made by this process in place of the caller, for sockets
// of the namespace only (connect.go), and Landlock refuses it to all others.
//
// Containers may have filters of their own, whose listeners their runtimes hand
// over: package containers takes them in, and asks this one to open their ports and
// to answer (guests.go).
package bypass

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/bypass/containers"
	"rootlesskit/internal/driver/relayed"
	"rootlesskit/internal/kernel"
	"rootlesskit/internal/netns"
	"rootlesskit/internal/publish"
	"rootlesskit/internal/relay"
	"rootlesskit/internal/seccomp"
)

// Name is the driver's name on the command line.
const Name = "bypass4netns"

// Ports is the driver.
type Ports struct {
	*relayed.Ports
	isolate bool
	// socket is where container tools ask for ports of containers; empty: nowhere.
	socket string
	sb     driver.Sandbox
	ctx    context.Context
	// hostPools have sockets of the host, for connections to native servers.
	hostPools map[int]*relay.Pool
	// cookies name the network namespaces (SO_NETNS_COOKIE).
	host, child uint64
	// sessions are the goroutines that answer calls.
	sessions   sync.WaitGroup
	containers *containers.Containers

	mu       sync.Mutex
	relaying error // why there are no native ports; nil: there are
	byTarget map[target][]*port
}

// socketFlag is the driver's own flag; the others are those of the relay.
const socketFlag = "bypass4netnsd-socket"

// Driver is the driver's registration.
func Driver() driver.Driver {
	return driver.Driver{
		Name: Name,
		Flags: append(relayed.Flags(), driver.Flag{
			Name: socketFlag, Kind: driver.File, Strict: true,
			Usage: "serve the API of bypass4netnsd at this path, through which container tools ask for native ports of containers; the command, a container engine, then gets none itself (port driver bypass4netns)",
		}),
		Ports: []driver.PortRole{{Name: Name, New: New}},
		Child: Handlers,
	}
}

// New returns the driver.
func New(cfg driver.PortsConfig, flags driver.Flags) (driver.Ports, error) {
	if err := relayed.CheckFlags(flags); err != nil {
		return nil, err
	}
	p := &Ports{
		Ports:     relayed.New(Name, flags),
		isolate:   cfg.DisableHostLoopback,
		socket:    flags.String(socketFlag),
		hostPools: map[int]*relay.Pool{},
		byTarget:  map[target][]*port{},
		relaying:  errors.New("the command has not started"),
	}
	if p.socket != "" && !filepath.IsAbs(p.socket) {
		return nil, fmt.Errorf("--%s must be an absolute path, got %q", socketFlag, p.socket)
	}
	p.containers = containers.New(p)
	return p, nil
}

// Start implements driver.Ports.
func (p *Ports) Start(ctx context.Context, sb driver.Sandbox, link driver.Link) error {
	p.sb, p.ctx = sb, ctx
	if err := p.Ports.Start(ctx, sb, link); err != nil {
		return err
	}
	if err := p.probe(ctx); err != nil {
		p.relay(err)
	}
	if why := p.noCommand(); why != nil && p.available() == nil {
		p.relaying = why
		p.sb.Log.Info("published TCP ports are not native, only those of containers", "reason", why)
	}
	if err := p.containers.Start(ctx, sb, link.Ifname); err != nil { // the path may be too long
		p.sb.Log.Warn("runtimes cannot hand containers over, whose ports are not native", "error", err)
	}
	return nil
}

// noCommand says why the command itself has no filter. A process has one filter
// with a listener: where a container engine is the command, its containers' one
// would be refused.
func (p *Ports) noCommand() error {
	switch {
	case p.sb.Detached:
		return errors.New("the command is not in the network namespace (--detach-netns)")
	case p.socket != "":
		return errors.New("the command is a container engine (--bypass4netnsd-socket)")
	}
	return nil
}

// available says why nothing can be native, whoever serves; nil: it can.
func (p *Ports) available() error {
	var unavailable *unavailableError
	if errors.As(p.why(), &unavailable) {
		return unavailable
	}
	return nil
}

// unavailableError marks a reason that will not pass.
type unavailableError struct{ error }

// relay notes why there are no native ports, and says so.
func (p *Ports) relay(why error) {
	p.mu.Lock()
	p.relaying = &unavailableError{why}
	p.mu.Unlock()
	p.sb.Log.Warn("published ports are not native, the relay serves them", "reason", why)
}

// probe finds out whether this kernel and this process can have native ports.
func (p *Ports) probe(ctx context.Context) (err error) {
	if err := seccomp.Probe(); err != nil {
		return err
	}
	if p.isolate {
		if err := kernel.LandlockTCP.Check(); err != nil {
			return fmt.Errorf("--disable-host-loopback: %w", err)
		}
	}
	if p.child, err = p.NetnsOf(ctx, 0); err != nil {
		return err
	}
	own, err := hostSockets(unix.AF_INET, 1)
	if err != nil {
		return err
	}
	defer unix.Close(own[0])
	p.host, err = netns.Cookie(own[0])
	return err
}

// NetnsOf implements containers.Driver; 0 is the child itself.
func (p *Ports) NetnsOf(ctx context.Context, pid int) (uint64, error) {
	fds, err := netns.Sockets(ctx, p.sb.Child, netns.SocketRequest{Family: unix.AF_INET, Type: unix.SOCK_STREAM, Count: 1, PID: pid})
	if err != nil {
		return 0, err
	}
	defer unix.Close(fds[0])
	return netns.Cookie(fds[0])
}

// Policy implements driver.Supervisor.
func (p *Ports) Policy() *seccomp.Policy {
	if p.available() != nil || p.noCommand() != nil {
		return nil
	}
	return &seccomp.Policy{Isolate: p.isolate}
}

// Supervise implements driver.Supervisor.
func (p *Ports) Supervise(fd int, err error) {
	if err != nil {
		p.relay(err)
		return
	}
	l, err := seccomp.NewListener(fd)
	if err != nil {
		p.relay(err)
		return
	}
	p.mu.Lock()
	p.relaying = nil
	p.mu.Unlock()
	p.sb.Log.Info("published TCP ports become native when a server binds them", "isolated", p.isolate)
	p.run(&session{driver: p, isolate: p.isolate, netns: p.child, published: p.publishedBy(nil)}, l, func(err error) {
		if err != nil {
			p.relay(err)
		}
	})
}

// run answers a session until it or the driver ends.
func (p *Ports) run(s *session, l *seccomp.Listener, ended func(error)) {
	stop := context.AfterFunc(p.ctx, l.Stop)
	p.sessions.Go(func() {
		err := s.answer(l)
		stop()
		ended(err)
	})
}

// Wait implements driver.Ports.
func (p *Ports) Wait() error {
	err := p.Ports.Wait()
	p.containers.Wait()
	p.sessions.Wait()
	p.mu.Lock()
	pools := p.hostPools
	p.mu.Unlock()
	for _, pool := range pools {
		pool.Wait()
	}
	return err
}

// Info implements driver.Ports.
func (p *Ports) Info() api.PortDriverInfo {
	info := p.Ports.Info()
	info.Extra["nativePorts"] = "yes"
	if why := p.why(); why != nil {
		info.Extra["nativePorts"] = "no: " + why.Error()
	}
	return info
}

// why is nil where there are native ports.
func (p *Ports) why() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.relaying
}

// Forward implements driver.Ports.
func (p *Ports) Forward(ctx context.Context, spec api.PortSpec) (io.Closer, error) {
	if !strings.HasPrefix(spec.Proto, "tcp") {
		return p.Ports.Forward(ctx, spec)
	}
	why := p.available()
	switch {
	case why != nil:
	case spec.ProxyProtocol != "":
		why = errProxyProtocol
	default:
		return p.forwardNative(spec)
	}
	port, err := p.Ports.Forward(ctx, spec)
	if err != nil {
		return nil, err
	}
	return &relayedPort{port.(*publish.Port), why}, nil
}

func (p *Ports) forwardNative(spec api.PortSpec) (io.Closer, error) {
	to, err := publish.Target(spec)
	if err != nil {
		return nil, err
	}
	inherited, err := p.sb.Inherited.Take(spec.Proto, spec.ParentIP, spec.ParentPort)
	if err != nil {
		return nil, err
	}
	if len(inherited.FDs) > 0 {
		port, err := p.ForwardOn(spec, to, inherited, nil)
		if err != nil {
			return nil, err
		}
		return &relayedPort{port, errors.New("the port's socket was inherited")}, nil
	}
	return p.forwardBase(spec, to, nil, nil)
}

var errProxyProtocol = errors.New("the server expects the PROXY protocol, which only the relay speaks")

// relayedPort is one that cannot be native.
type relayedPort struct {
	*publish.Port
	why error
}

// Details implements driver.Detailer.
func (p *relayedPort) Details() api.PortDetails {
	d := p.Port.Details()
	d.State, d.StateReason = api.PortRelay, p.why.Error()
	return d
}

// hostPool has sockets of the host.
func (p *Ports) hostPool(family int) *relay.Pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	pool := p.hostPools[family]
	if pool == nil {
		pool = relay.NewPool(p.ctx, hostPoolSize, func(_ context.Context, n int) ([]int, error) {
			return hostSockets(family, n)
		}, p.sb.Log)
		p.hostPools[family] = pool
	}
	return pool
}

// hostPoolSize is small: few connections come this way.
const hostPoolSize = 16

func hostSockets(family, n int) ([]int, error) {
	return netns.Own().NewSockets(netns.SocketRequest{Family: family, Type: unix.SOCK_STREAM, Count: n})
}

func (p *Ports) log() *slog.Logger { return p.sb.Log }
