package driver

import (
	"context"
	"net/netip"

	"rootlesskit/internal/netns"
	"rootlesskit/internal/wire"
)

// Driver is everything a driver says about itself. Help, the man page,
// completion, --check and the choice of auto are made from it, and know no
// driver by name.
type Driver struct {
	// Name is the driver's name, and that of its network on the command line.
	Name string
	// Flags are the driver's own flags. Those of all drivers are accepted, whatever
	// drivers are in use.
	Flags []Flag
	// Network is the driver's role in --net; nil if it has none.
	Network *NetworkRole
	// Ports are its roles in --port-driver.
	Ports []PortRole
	// Child makes the handlers that the driver runs inside the child; may be nil.
	Child ChildHandlers
}

// ChildHandlers makes a driver's handlers for the run's network namespace. What
// they start lives until ctx ends.
type ChildHandlers = func(ctx context.Context, ns *netns.Namespace) wire.Handlers

// NetworkRole is a driver as a value of --net.
type NetworkRole struct {
	// MTU and Ifname are the defaults of --mtu and --ifname.
	MTU    int
	Ifname string
	// CIDR says that the driver lays out a network inside according to --cidr,
	// IPv6 that it supports --ipv6, TUN that it needs /dev/net/tun.
	CIDR, IPv6, TUN bool
	// Isolated says that the namespace has only its loopback interface, and that
	// /sys stays the host's.
	Isolated bool
	// PortDrivers are the only port drivers that go with the network; nil means all
	// that do not belong to another network.
	PortDrivers []string
	// Leak says what a command can reach on the host's loopback in spite of
	// --disable-host-loopback; empty: nothing.
	Leak string
	// Helper is the program that the driver executes; nil if there is none.
	Helper *Helper
	Auto   Auto
	// New validates the driver's own flags and makes the driver. It has no side
	// effects; of the system, it only looks at programs.
	New func(cfg NetworkConfig, flags Flags) (Network, error)
}

// PortRole is a driver as a value of --port-driver.
type PortRole struct {
	Name string
	// Unasked says that the driver's network publishes every port that a server
	// inside listens on: no port can be requested, and there are no Ports.
	Unasked bool
	Helper  *Helper
	Auto    Auto
	// New is like NetworkRole.New. It is nil if the role belongs to the driver's own
	// network, which then is a Publisher, and goes with no other.
	New func(cfg PortsConfig, flags Flags) (Ports, error)
}

// ofNetwork reports whether the role only goes with the driver's own network.
func (r *PortRole) ofNetwork() bool { return r.New == nil }

// Auto says how auto ranks a driver.
type Auto struct {
	// Rank orders the candidates; 1 is the best. auto never chooses a driver with rank 0.
	Rank int
	// Why is the reason for choosing the driver.
	Why string
}

// Helper is a program of another project that a driver executes. --check asks the
// driver's New whether it can use the program.
type Helper struct {
	Flag    string // the flag with the program's name or path
	Package string // the distributions' package
	Limits  string // what no version of it can do; may be empty
}

// NetworkConfig has the flags that all network drivers share, validated.
type NetworkConfig struct {
	MTU                 int          // never 0
	CIDR                netip.Prefix // the network, e.g. 10.0.2.0/24
	Ifname              string       // never empty, unless the network is isolated
	IPv6                bool
	DisableHostLoopback bool
	Detached            bool
	// Ports is the name of the run's port driver, NoPorts if there is none.
	Ports string
}

// PortsConfig has the flags that all port drivers share, validated.
type PortsConfig struct {
	DisableHostLoopback bool
}
