package driver

import (
	"context"
	"net/netip"

	"rootlesskit/internal/netns"
	"rootlesskit/internal/wire"
)

// Driver is all that a driver says about itself. Help, the man page, completion,
// --check and the choice of auto are made from it, and know no driver by name.
type Driver struct {
	// Name is the driver's name, and that of its network on the command line.
	Name string
	// Flags are the driver's own flags. Those of all drivers are accepted, whatever
	// drivers are in use.
	Flags []Flag
	// Network is the driver's role in --net; nil: it has none.
	Network *NetworkRole
	// Ports are its roles in --port-driver.
	Ports []PortRole
	// Child makes the handlers that the driver runs inside the child; may be nil.
	Child ChildHandlers
}

// ChildHandlers makes a driver's handlers for the network namespace that the
// run is about. What they start lives until ctx ends.
type ChildHandlers = func(ctx context.Context, ns *netns.Namespace) wire.Handlers

// NetworkRole is a driver as a value of --net.
type NetworkRole struct {
	// MTU and Ifname are the defaults of --mtu and --ifname.
	MTU    int
	Ifname string
	// CIDR says that the driver lays out a network inside by --cidr, IPv6 that it
	// has --ipv6, TUN that it needs /dev/net/tun.
	CIDR, IPv6, TUN bool
	// Isolated says that the namespace has its loopback interface alone, whose
	// /sys stays the host's.
	Isolated bool
	// PortDrivers are the only port drivers that go with the network; nil: all that
	// do not belong to another network.
	PortDrivers []string
	// Leak says what of the host's loopback a command reaches in spite of
	// --disable-host-loopback; empty: nothing.
	Leak string
	// Helper is the program that the driver executes; nil: none.
	Helper *Helper
	Auto   Auto
	// New validates the driver's own flags. It touches nothing of the system, beyond
	// looking at programs, and has no effect on anything but what it returns.
	New func(cfg NetworkConfig, flags Flags) (Network, error)
}

// PortRole is a driver as a value of --port-driver.
type PortRole struct {
	Name string
	// Unasked says that the driver's network publishes whatever is listened on
	// inside: no port can be asked for, and there are no Ports.
	Unasked bool
	Helper  *Helper
	Auto    Auto
	// New is like NetworkRole.New. It is nil for a role of the driver's own network,
	// which is a Publisher then, and goes with no other.
	New func(cfg PortsConfig, flags Flags) (Ports, error)
}

// ofNetwork reports whether the role goes with the driver's own network alone.
func (r *PortRole) ofNetwork() bool { return r.New == nil }

// Auto says when the choice of auto falls on a driver.
type Auto struct {
	// Rank orders the candidates, 1 being the best; 0: auto never chooses it.
	Rank int
	// Why is what speaks for the driver.
	Why string
}

// Helper is a program of another project that a driver executes. --check asks the
// driver's New whether it can use the program.
type Helper struct {
	Flag    string // the flag of the program's name or path
	Package string // the distributions' package of it
	Limits  string // what no version of it can do; may be empty
}

// NetworkConfig holds the flags that all network drivers share, validated.
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

// PortsConfig holds the flags that all port drivers share, validated.
type PortsConfig struct {
	DisableHostLoopback bool
}
