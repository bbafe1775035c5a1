package driver

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// UnknownError is the error for a name that no driver has.
type UnknownError struct {
	What, Name string
	Known      []string
}

func (e *UnknownError) Error() string { return fmt.Sprintf("unknown %s: %s", e.What, e.Name) }

// OmittedError is the error for a driver that the binary was built without.
type OmittedError struct {
	What, Name string
	Has        []string
}

func (e *OmittedError) Error() string {
	return fmt.Sprintf("%s %q was left out at build time: this binary has %s", e.What, e.Name, strings.Join(e.Has, ", "))
}

// CheckNetwork checks the name of a network. NewNetwork refuses a retired one
// later, so that errors in its options come first, as for all others.
func (r *Registry) CheckNetwork(name string) error {
	known, ok := r.knowsNetwork(name)
	switch {
	case name == Host, r.network(name) != nil, known.Retired != "":
		return nil
	case ok:
		return &OmittedError{"network driver", name, append([]string{Host}, r.Networks()...)}
	}
	return &UnknownError{"network mode", name, append([]string{Host, AutoName}, r.Networks()...)}
}

// CheckPair checks whether a port driver goes with a network. Clients know the
// texts of its errors, and their order.
func (r *Registry) CheckPair(network, ports string) error {
	owner, known := r.knowsPorts(ports)
	known = known || ports == NoPorts
	role := r.Network(network)
	named, _ := r.knowsNetwork(ports)
	switch {
	case named.Meant != "":
		return fmt.Errorf("unknown port driver %q: did you mean %q?", ports, named.Meant)
	case known && ports != NoPorts && r.Ports(ports) == nil:
		return r.omittedPorts(ports)
	case network == Host && known && ports != NoPorts:
		return errors.New("port driver requires non-host network")
	case role != nil && role.Isolated && !role.goesWith(ports):
		return role.requires(network)
	case !known:
		return &UnknownError{"port driver", ports, append([]string{NoPorts, AutoName}, r.PortDrivers()...)}
	case role != nil && !role.goesWith(ports):
		return role.requires(network)
	case owner.Network && owner.Name != network && ports == owner.Name:
		return fmt.Errorf("port driver requires %s network", owner.Name)
	case owner.Network && owner.Name != network:
		return fmt.Errorf("port driver %q requires --net=%s", ports, owner.Name)
	}
	return nil
}

func (r *Registry) omittedPorts(name string) error {
	return &OmittedError{"port driver", name, append([]string{NoPorts}, r.PortDrivers()...)}
}

func (n *NetworkRole) goesWith(ports string) bool {
	return n.PortDrivers == nil || ports == NoPorts || slices.Contains(n.PortDrivers, ports)
}

// requires returns the error for a port driver that does not go with the network.
func (n *NetworkRole) requires(network string) error {
	quoted := []string{fmt.Sprintf("port driver %q", NoPorts)}
	for _, name := range n.PortDrivers {
		quoted = append(quoted, fmt.Sprintf("%q", name))
	}
	text := strings.Join(quoted, " or ")
	if len(quoted) == 2 {
		text = "either " + text
	}
	return fmt.Errorf("network %q requires %s", network, text)
}
