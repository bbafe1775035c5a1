// Package driver holds the contracts between the launcher and its drivers. No
// driver knows another, and the launcher knows none of them by name: it gets a
// Registry (see driver/all) and calls what is declared here.
package driver

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/netip"

	"rootlesskit/api"
	"rootlesskit/internal/hostsock"
	"rootlesskit/internal/seccomp"
	"rootlesskit/internal/wire"
)

// Sandbox is what a driver may touch of the running child.
type Sandbox struct {
	// PID is the child's process ID as the parent sees it.
	PID int
	// NetnsPath names the child's network namespace in a way that the parent
	// and its helpers can open.
	NetnsPath string
	// StateDir is the run's state directory, for sockets of helpers.
	StateDir string
	// Detached says that the command does not live in the network namespace
	// (--detach-netns).
	Detached bool
	// Child runs a handler inside the child, in its network namespace. Package
	// netns has the typed calls every driver may use; a driver's own handlers
	// come from its registration.
	Child wire.Caller
	// Inherited are sockets that a driver which listens in the parent uses for
	// its ports; nil is none.
	Inherited *hostsock.Inherited
	// Table is the list of the published ports; it is for port drivers alone.
	Table Table
	// Log is the driver's logger.
	Log *slog.Logger
}

// Network connects the child's network namespace to the world. It may be Changing,
// and a Publisher.
type Network interface {
	// Attach sets the network up and returns once packets can flow. The
	// backend lives until ctx ends.
	Attach(ctx context.Context, sb Sandbox) (Link, error)
	// Wait blocks until the backend has ended: nil after Attach's context
	// ended, else the reason of its death.
	Wait() error
}

// Changing is implemented by a Network whose Link may change while it is attached
// (Link.DynamicIP).
type Changing interface {
	// Link is the network as it is now.
	Link() Link
}

// Publisher is implemented by a Network that publishes ports itself, for the port
// drivers that go with no other.
type Publisher interface {
	// Ports is the port driver that NetworkConfig.Ports names.
	Ports() Ports
}

// Link is the network as the child sees it.
type Link struct {
	Ifname     string
	MTU        int
	IPv4       netip.Prefix // the child's address
	IPv6       netip.Prefix // invalid without IPv6
	DNS        []netip.Addr // name servers for the child's resolv.conf
	DynamicIP  bool         // the address may change (DHCP)
	HostLocals []HostName   // extra lines for the child's /etc/hosts
}

// HostName is a line of the child's /etc/hosts.
type HostName struct {
	Addr netip.Addr
	Name string
}

// Ports publishes ports of the namespace on the host. It may be a Supervisor, and
// Serving; the Closers of Forward may be Detailers.
type Ports interface {
	// Start readies the driver; it is called once, after the network was
	// attached. The driver lives until ctx ends, and has closed everything by
	// the time Wait returns.
	Start(ctx context.Context, sb Sandbox, link Link) error
	// Forward publishes one port until the returned Closer is closed. Close is
	// synchronous: when it returns, the listener is closed, its connections are
	// cut, and the same port can be forwarded again; where it fails, it may be
	// called again. The error of a port that cannot be bound is in the words of
	// Go's net package. ctx bounds the call alone, not the life of the port.
	Forward(ctx context.Context, spec api.PortSpec) (io.Closer, error)
	// Info describes the driver, as GET /v1/info shows it.
	Info() api.PortDriverInfo
	// Wait blocks until the driver has ended, like Network.Wait.
	Wait() error
}

// Forward is Ports.Forward, or a function that does the same.
type Forward func(ctx context.Context, spec api.PortSpec) (io.Closer, error)

// Table is the list of the published ports (ports.Table), for a driver that
// publishes ports of its own accord, such as those of containers: they are listed
// and removed as all others, and conflict with them.
type Table interface {
	// PublishBy publishes a port that forward opens in place of Ports.Forward.
	PublishBy(ctx context.Context, spec api.PortSpec, forward Forward) (api.PortStatus, error)
	// Unpublish closes a port. It fails where no port has the ID.
	Unpublish(ctx context.Context, id int) error
}

// Detailer is implemented by the Closers of Forward that count what they did.
type Detailer interface {
	Details() api.PortDetails
}

// Supervisor is implemented by Ports that decide about system calls of the
// command. What it starts is supervised with it.
type Supervisor interface {
	// Policy says which calls they are; nil: the command is left alone.
	Policy() *seccomp.Policy
	// Supervise is called once, as the command starts. It takes over the listener
	// that answers the calls, or is told why there is none.
	Supervise(listener int, err error)
}

// Serving is implemented by Ports that have a REST API of their own.
type Serving interface {
	// Socket is the absolute path to serve it at; empty: nowhere.
	Socket() string
	Handler() http.Handler
}
