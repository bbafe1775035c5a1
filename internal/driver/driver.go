// Package driver defines the contracts between the launcher and its drivers. No
// driver imports another, and the launcher knows none of them by name: it gets
// a Registry (see driver/all) and uses the interfaces that are declared here.
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

// Sandbox gives a driver access to the running child.
type Sandbox struct {
	// PID is the child's process ID as the parent sees it.
	PID int
	// NetnsPath is a path of the child's network namespace that the parent and its
	// helpers can open.
	NetnsPath string
	// StateDir is the run's state directory, for sockets of helpers.
	StateDir string
	// Detached says that the command does not run in the network namespace
	// (--detach-netns).
	Detached bool
	// Child runs a handler inside the child, in its network namespace. Package
	// netns has calls that every driver may use; a driver's own handlers come from
	// its registration.
	Child wire.Caller
	// Inherited has sockets that a driver uses for its ports if it listens in the
	// parent; nil means none.
	Inherited *hostsock.Inherited
	// Table is the table of published ports, for port drivers only.
	Table Table
	// Log is the driver's logger.
	Log *slog.Logger
}

// Network connects the child's network namespace to the world. It may also
// implement Changing and Publisher.
type Network interface {
	// Attach sets up the network and returns once packets can flow. The backend
	// lives until ctx ends.
	Attach(ctx context.Context, sb Sandbox) (Link, error)
	// Wait blocks until the backend has ended. It returns nil after the end of
	// Attach's context, and otherwise the reason for the backend's death.
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
	// Ports returns the port driver that NetworkConfig.Ports names.
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

// Ports publishes ports of the namespace on the host. It may also implement
// Supervisor and Serving; the Closers of Forward may implement Detailer.
type Ports interface {
	// Start starts the driver; it is called once, after the network has been
	// attached. The driver lives until ctx ends, and has closed everything when
	// Wait returns.
	Start(ctx context.Context, sb Sandbox, link Link) error
	// Forward publishes one port until the returned Closer is closed. Close is
	// synchronous: when it returns, the listener is closed, its connections are
	// cut, and the same port can be forwarded again. If Close fails, it may be
	// called again. The error for a port that cannot be bound has the wording of
	// Go's net package. ctx only bounds the call, not the life of the port.
	Forward(ctx context.Context, spec api.PortSpec) (io.Closer, error)
	// Info describes the driver for GET /v1/info.
	Info() api.PortDriverInfo
	// Wait blocks until the driver has ended, like Network.Wait.
	Wait() error
}

// Forward is Ports.Forward, or a function with the same contract.
type Forward func(ctx context.Context, spec api.PortSpec) (io.Closer, error)

// Table is the table of published ports (ports.Table), for a driver that
// publishes ports on its own initiative, such as those of containers. Like all
// others, these are listed, can be removed, and can conflict.
type Table interface {
	// PublishBy publishes a port, which forward opens instead of Ports.Forward.
	PublishBy(ctx context.Context, spec api.PortSpec, forward Forward) (api.PortStatus, error)
	// Unpublish closes a port. It fails if no port has the ID.
	Unpublish(ctx context.Context, id int) error
}

// Detailer is implemented by the Closers of Forward that count what they did.
type Detailer interface {
	Details() api.PortDetails
}

// Supervisor is implemented by Ports that decide about system calls of the
// command and of everything the command starts.
type Supervisor interface {
	// Policy returns which calls these are; nil if the command is not supervised.
	Policy() *seccomp.Policy
	// Supervise is called once, when the command starts. It takes over the
	// listener for the calls, or gets the reason why there is none.
	Supervise(listener int, err error)
}

// Serving is implemented by Ports that have a REST API of their own.
type Serving interface {
	// Socket returns the absolute path of the API's socket; empty if the API is not served.
	Socket() string
	Handler() http.Handler
}
