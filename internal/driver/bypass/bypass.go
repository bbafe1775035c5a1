// Package bypass is the port driver with native ports: a server in the namespace
// that binds a published TCP port gets a socket of the host in place of its own, and
// then serves its clients without rootlesskit in between.
//
// Theory of operation. A published port has two listening sockets in the host, which
// share its address by SO_REUSEPORT:
//
//	                     +-- in front: the server's own socket, made in the host
//	client -> host port -+
//	                     +-- fallback: a listener of package relayed -> server
//
// A seccomp filter stops the command, and all that it starts, at bind(2), and this
// process decides what happens (answer.go, bind.go). For a published port it makes a
// socket like the one to be bound, in the host, binds it to the published address,
// and puts it in the place of the other one in the server's process (swap.go; package
// fdswap). The kernel gives a new connection to the server's socket while that
// listens, and to the fallback otherwise (hostsock.Base). So whatever fails on the way
// to a native port, and whenever a server ends, the fallback serves at once, and
// nobody else can take the port.
//
// Calls that are not about a published port are ignored: they pass through to the
// kernel.
//
// The socket that the server gave up is bound to the address in the namespace that
// the server asked for. It becomes the shadow (shadow.go): a listener whose
// connections are forwarded to the host's port, for clients in the namespace.
//
// Under --disable-host-loopback a socket of the host must not be connected from
// inside. This process makes connect(2) in place of the caller, for sockets of the
// namespace only (connect.go), and Landlock refuses every other connect.
//
// Containers may have filters of their own, whose listeners their runtimes hand over.
// Package containers receives these, and calls this package to open the containers'
// ports and to answer their calls (guests.go).
package bypass

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/bypass/containers"
	"rootlesskit/internal/driver/relayed"
	"rootlesskit/internal/netns"
	"rootlesskit/internal/publish"
	"rootlesskit/internal/relay"
)

// Name is the driver's name on the command line.
const Name = "bypass4netns"

// Ports is the driver.
type Ports struct {
	*relayed.Ports
	isolate bool
	// socket is the path of the API for container tools; empty: there is none.
	socket string
	sb     driver.Sandbox
	ctx    context.Context
	// hostPools have sockets of the host, for connections to native servers; by
	// family.
	hostPools map[int]*relay.Pool
	// host and child are the cookies of the two network namespaces.
	host, child uint64
	// sessions are the goroutines that answer calls.
	sessions   sync.WaitGroup
	containers *containers.Containers

	mu       sync.Mutex
	noNative error // why the command has no native ports; nil: it can have them
	byTarget map[target][]*port
}

// socketFlag is the driver's own flag; the others are those of package relayed.
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
		noNative:  errors.New("the command has not started"),
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
		p.fallBack(err)
	}
	if why := p.noCommand(); why != nil && p.unavailable() == nil {
		p.noNative = why
		p.sb.Log.Info("published TCP ports are not native, only those of containers", "reason", why)
	}
	if err := p.containers.Start(ctx, sb, link.Ifname); err != nil { // the path may be too long
		p.sb.Log.Warn("runtimes cannot hand containers over, whose ports are not native", "error", err)
	}
	return nil
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

// Forward implements driver.Ports.
func (p *Ports) Forward(ctx context.Context, spec api.PortSpec) (io.Closer, error) {
	if spec.Proto.Transport() != api.TCP {
		return p.Ports.Forward(ctx, spec)
	}
	why := p.unavailable()
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
	return &fallbackPort{port.(*publish.Port), why}, nil
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
		return &fallbackPort{port, errors.New("the port's socket was inherited")}, nil
	}
	return p.forwardBase(spec, to, nil, nil)
}

var errProxyProtocol = errors.New("the server expects the PROXY protocol, which only the relay speaks")

// fallbackPort is a port that cannot be native.
type fallbackPort struct {
	*publish.Port
	why error
}

var (
	_ driver.Detailer = (*fallbackPort)(nil)
	_ driver.Detailer = (*port)(nil)
)

// Details implements driver.Detailer.
func (p *fallbackPort) Details() api.PortDetails {
	d := p.Port.Details()
	d.State, d.StateReason = api.PortRelay, p.why.Error()
	return d
}

// hostPool returns the pool of sockets of the host of a family.
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

// hostPoolSize is small, since few connections come this way.
const hostPoolSize = 16

func hostSockets(family, n int) ([]int, error) {
	return netns.Own().NewSockets(netns.SocketRequest{Family: family, Type: unix.SOCK_STREAM, Count: n})
}

func (p *Ports) log() *slog.Logger { return p.sb.Log }
