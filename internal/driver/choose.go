package driver

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// AutoName is the value of --net and --port-driver that leaves the choice to this
// program.
const AutoName = "auto"

// Want is what the command line asks for.
type Want struct {
	Network, Ports string // a name, or AutoName
	// Isolate prefers networks that fully enforce --disable-host-loopback.
	Isolate bool
}

// Choice has the drivers of a run. A reason is empty if the command line named the
// driver.
type Choice struct {
	Network, Ports             string
	NetworkReason, PortsReason string
}

// candidate is a driver that may be chosen, with its rank and reason.
type candidate struct {
	name string
	Auto
}

// Choose finds the best drivers that go together and work, according to try. It
// has no effects except those of try.
func Choose(r *Registry, want Want, try func(network, ports string) error) (Choice, error) {
	choice := Choice{Network: want.Network, Ports: want.Ports}
	if want.Network != AutoName && (want.Ports != AutoName || r.CheckNetwork(want.Network) != nil) {
		return choice, nil
	}
	networks, ports := r.candidates(want)
	var failed []string
	for _, n := range networks {
		for _, p := range ports {
			if r.CheckPair(n.name, p.name) != nil {
				continue
			}
			err := try(n.name, p.name)
			if err == nil {
				return Choice{n.name, p.name, reason(n, failed), reason(p, failed)}, nil
			}
			failed = append(failed, fmt.Sprintf("%s with %s: %v", n.name, p.name, err))
		}
	}
	switch {
	case len(failed) > 0:
		return choice, errors.New("no drivers work here: " + strings.Join(failed, "; "))
	case len(networks) > 0: // the requested driver goes with none of them
		return choice, r.CheckPair(networks[0].name, ports[0].name)
	}
	return choice, errors.New("this binary was built without any network that auto may choose")
}

func reason(c candidate, failed []string) string {
	if c.Why == "" || len(failed) == 0 {
		return c.Why
	}
	return c.Why + "; passed over: " + strings.Join(failed, "; ")
}

// candidates returns the drivers that may be chosen, the best first.
func (r *Registry) candidates(want Want) (networks, ports []candidate) {
	for d := range r.Drivers {
		if d.Network != nil && d.Network.Auto.Rank > 0 {
			networks = append(networks, candidate{d.Name, d.Network.Auto})
		}
		for _, role := range d.Ports {
			if role.Auto.Rank > 0 {
				ports = append(ports, candidate{role.Name, role.Auto})
			}
		}
	}
	byRank := func(a, b candidate) int { return cmp.Compare(a.Rank, b.Rank) }
	slices.SortStableFunc(networks, byRank)
	slices.SortStableFunc(ports, byRank)
	ports = append(ports, candidate{NoPorts, Auto{Why: "no other works with the network"}})
	if want.Isolate {
		slices.SortStableFunc(networks, func(a, b candidate) int {
			return cmp.Compare(len(r.Network(a.name).Leak), len(r.Network(b.name).Leak))
		})
	}
	if want.Network != AutoName {
		networks = []candidate{{name: want.Network}}
	}
	if want.Ports != AutoName {
		ports = []candidate{{name: want.Ports}}
	}
	return networks, ports
}

// Isolating returns the networks that auto may choose and that fully enforce
// --disable-host-loopback.
func (r *Registry) Isolating() []string {
	networks, _ := r.candidates(Want{Network: AutoName, Ports: AutoName, Isolate: true})
	var names []string
	for _, n := range networks {
		if r.Network(n.name).Leak == "" {
			names = append(names, n.name)
		}
	}
	return names
}
