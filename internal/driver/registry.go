package driver

import (
	"context"
	"net/netip"
	"slices"

	"rootlesskit/internal/netns"
	"rootlesskit/internal/wire"
)

// Flags is how a driver reads its own command-line flags, so that no option
// struct has to list them all. A *cli.Command is one.
type Flags interface {
	String(name string) string
	Bool(name string) bool
}

// NetworkConfig holds the flags that all network drivers share, validated.
type NetworkConfig struct {
	MTU                 int          // never 0
	CIDR                netip.Prefix // the network, e.g. 10.0.2.0/24
	Ifname              string       // never empty
	IPv6                bool
	DisableHostLoopback bool
	Detached            bool
}

// NetworkDriver is the registration of a network driver.
type NetworkDriver struct {
	Name string
	// MTU and Ifname are the defaults of --mtu and --ifname.
	MTU    int
	Ifname string
	// IPv6 says whether --ipv6 is supported.
	IPv6 bool
	// New validates the driver's own flags. It must not touch the system
	// beyond looking binaries up.
	New func(cfg NetworkConfig, flags Flags) (Network, error)
}

// PortDriver is the registration of a port driver.
type PortDriver struct {
	Name string
	// Networks lists the network drivers that it works with; empty means any
	// but host.
	Networks []string
	// New validates the driver's own flags. network is the driver of the same
	// run, for backends that serve both roles. A backend that publishes ports
	// unasked returns nil: there is no driver to speak to.
	New func(network Network, flags Flags) (Ports, error)
}

// Registry lists the drivers that this binary was built with.
type Registry struct {
	Networks []NetworkDriver
	Ports    []PortDriver
	// Child holds the handlers that drivers run inside the child.
	Child []ChildHandlers
}

// ChildHandlers makes a driver's handlers for the network namespace that the
// run is about. What they start lives until ctx ends.
type ChildHandlers = func(ctx context.Context, ns *netns.Namespace) wire.Handlers

// Network returns the network driver of that name, or nil.
func (r *Registry) Network(name string) *NetworkDriver {
	if i := slices.IndexFunc(r.Networks, func(d NetworkDriver) bool { return d.Name == name }); i >= 0 {
		return &r.Networks[i]
	}
	return nil
}

// PortDriver returns the port driver of that name, or nil.
func (r *Registry) PortDriver(name string) *PortDriver {
	if i := slices.IndexFunc(r.Ports, func(d PortDriver) bool { return d.Name == name }); i >= 0 {
		return &r.Ports[i]
	}
	return nil
}
