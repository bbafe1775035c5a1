package driver

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
)

// The names on the command line for the absence of a driver.
const (
	Host    = "host" // --net: the host's own network
	NoPorts = "none" // --port-driver: no ports
)

// Known is what a binary knows about a driver that it was built without: enough to
// say so, and to accept the driver's flags.
type Known struct {
	Name string
	// Tag is the build tag that leaves out the driver; empty if there is none.
	Tag string
	// Summary says, for packagers, what the tag leaves out.
	Summary string
	// Network says that the driver has a network role; Ports names its port roles.
	Network bool
	Ports   []string
	// Meant is the port driver that users mean if they use the name of the network
	// as a port driver; empty if there is none.
	Meant string
	// Flags have only name, kind and default.
	Flags []Flag
	// Retired says what to use instead of a driver that no build has.
	Retired string
}

// Registry has the drivers of this binary, and what it knows about others.
type Registry struct {
	entries []entry
}

// entry is a known driver, which is registered unless it was left out.
type entry struct {
	Known
	driver *Driver
}

// NewRegistry returns a registry without drivers. Help lists the known drivers
// in the given order, and others after them.
func NewRegistry(known ...Known) *Registry {
	r := &Registry{}
	for _, k := range known {
		r.entries = append(r.entries, entry{Known: k})
	}
	return r
}

// Register adds a driver. It panics if two drivers have a name in common.
func (r *Registry) Register(d Driver) {
	at := slices.IndexFunc(r.entries, func(e entry) bool { return e.Name == d.Name })
	if at < 0 {
		r.entries = append(r.entries, entry{Known: Known{Name: d.Name, Network: d.Network != nil, Ports: portNames(d)}})
		at = len(r.entries) - 1
	}
	if r.entries[at].driver != nil {
		panic("the driver " + d.Name + " is registered twice")
	}
	for _, role := range d.Ports {
		if owner, _ := r.portRole(role.Name); owner != nil {
			panic(fmt.Sprintf("the port driver %s is registered twice, by %s and %s", role.Name, owner.Name, d.Name))
		}
	}
	for _, f := range d.Flags {
		if other, ok := r.flag(f.Name); ok && !reflect.DeepEqual(f, other) {
			panic(fmt.Sprintf("the driver %s declares the flag --%s, which another one has declared as something else", d.Name, f.Name))
		}
	}
	r.entries[at].driver = &d
}

func portNames(d Driver) []string {
	var names []string
	for _, role := range d.Ports {
		names = append(names, role.Name)
	}
	return names
}

func (r *Registry) flag(name string) (Flag, bool) {
	for d := range r.Drivers {
		if i := slices.IndexFunc(d.Flags, func(f Flag) bool { return f.Name == name }); i >= 0 {
			return d.Flags[i], true
		}
	}
	return Flag{}, false
}

// Flags yields the flags of all drivers, each with the name of the first driver
// that has it. It includes the flags of drivers that were left out, so that a
// command line works with every build; they are hidden, unless the driver is
// retired.
func (r *Registry) Flags(yield func(owner string, f Flag) bool) {
	seen := map[string]bool{}
	for _, e := range r.entries {
		flags := e.Known.Flags
		if e.driver != nil {
			flags = e.driver.Flags
		}
		for _, f := range flags {
			if _, has := r.flag(f.Name); seen[f.Name] || has && e.driver == nil {
				continue
			}
			seen[f.Name] = true
			f.Hidden = f.Hidden || e.driver == nil && e.Retired == ""
			f.Category = cmp.Or(f.Category, e.category())
			if !yield(e.Name, f) {
				return
			}
		}
	}
}

// category returns the topic under which help lists a driver's flags.
func (e *entry) category() string {
	if e.Network {
		return "Network [" + e.Name + "]"
	}
	return "Port"
}

// Drivers yields the registered drivers in the order of help.
func (r *Registry) Drivers(yield func(*Driver) bool) {
	for _, e := range r.entries {
		if e.driver != nil && !yield(e.driver) {
			return
		}
	}
}

// Omitted yields the known drivers that are not registered.
func (r *Registry) Omitted(yield func(Known) bool) {
	for _, e := range r.entries {
		if e.driver == nil && !yield(e.Known) {
			return
		}
	}
}

// Networks returns the values of --net for which this binary has drivers.
func (r *Registry) Networks() []string {
	var names []string
	for d := range r.Drivers {
		if d.Network != nil {
			names = append(names, d.Name)
		}
	}
	return names
}

// PortDrivers returns the values of --port-driver for which this binary has drivers.
func (r *Registry) PortDrivers() []string {
	var names []string
	for d := range r.Drivers {
		names = append(names, portNames(*d)...)
	}
	return names
}

// Network returns the role of a network driver, or nil.
func (r *Registry) Network(name string) *NetworkRole {
	if d := r.network(name); d != nil {
		return d.Network
	}
	return nil
}

func (r *Registry) network(name string) *Driver {
	for d := range r.Drivers {
		if d.Name == name && d.Network != nil {
			return d
		}
	}
	return nil
}

// Ports returns the role of a port driver, or nil.
func (r *Registry) Ports(name string) *PortRole {
	_, role := r.portRole(name)
	return role
}

func (r *Registry) portRole(name string) (*Driver, *PortRole) {
	for d := range r.Drivers {
		for i := range d.Ports {
			if d.Ports[i].Name == name {
				return d, &d.Ports[i]
			}
		}
	}
	return nil, nil
}

// knowsNetwork returns what is known about a network driver.
func (r *Registry) knowsNetwork(name string) (Known, bool) {
	i := slices.IndexFunc(r.entries, func(e entry) bool { return e.Network && e.Name == name })
	if i < 0 {
		return Known{}, false
	}
	return r.entries[i].Known, true
}

// knowsPorts returns what is known about the driver with a port role.
func (r *Registry) knowsPorts(name string) (Known, bool) {
	i := slices.IndexFunc(r.entries, func(e entry) bool { return slices.Contains(e.Ports, name) })
	if i < 0 {
		return Known{}, false
	}
	return r.entries[i].Known, true
}

// Child returns the functions that make the handlers of all drivers.
func (r *Registry) Child() []ChildHandlers {
	var all []ChildHandlers
	for d := range r.Drivers {
		if d.Child != nil {
			all = append(all, d.Child)
		}
	}
	return all
}

// NewNetwork makes a network driver; it returns nil for the host's network.
// values are the flags of the command line.
func (r *Registry) NewNetwork(name string, cfg NetworkConfig, values Flags) (Network, error) {
	if name == Host {
		return nil, nil
	}
	d := r.network(name)
	if d == nil {
		if known, _ := r.knowsNetwork(name); known.Retired != "" {
			return nil, fmt.Errorf("network driver %q is retired: %s", name, known.Retired)
		}
		return nil, r.CheckNetwork(name)
	}
	cfg.MTU = cmp.Or(cfg.MTU, d.Network.MTU)
	cfg.Ifname = cmp.Or(cfg.Ifname, d.Network.Ifname)
	cfg.IPv6 = cfg.IPv6 && d.Network.IPv6
	return d.Network.New(cfg, DeclaredFlags(d.Flags, values))
}

// NewPorts makes a port driver for a network of the same registry. It returns nil
// if no ports can be requested.
func (r *Registry) NewPorts(name string, network Network, cfg PortsConfig, values Flags) (Ports, error) {
	if name == NoPorts {
		return nil, nil
	}
	d, role := r.portRole(name)
	switch {
	case d == nil:
		return nil, r.omittedPorts(name)
	case role.Unasked:
		return nil, nil
	case role.ofNetwork():
		return network.(Publisher).Ports(), nil
	}
	return role.New(cfg, DeclaredFlags(d.Flags, values))
}
