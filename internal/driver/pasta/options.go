package pasta

import (
	"fmt"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/helper"
	"rootlesskit/internal/netns"
)

// required are the options that the driver cannot do without. The version of
// March 2023 (Debian 12) has all of them.
var required = []string{
	"--foreground", "--pid", "--userns", "--netns", "--ns-ifname", "--mtu", "--address", "--netmask", "--gateway",
	"--dns-forward", "--no-map-gw", "--ipv4-only", "--tcp-ports", "--udp-ports", "--tcp-ns", "--udp-ns",
	"--no-dhcp", "--no-dhcpv6", "--no-ra",
}

func probe(flags driver.Flags) (*helper.Binary, error) {
	binary, err := helper.Probe(flags.String(binaryFlag))
	if err != nil {
		return nil, err
	}
	if lacks := binary.Lacks(required...); lacks != "" {
		return nil, fmt.Errorf("pasta is too old: %s has no %s, a version of 2023_03 or later is needed", binary.Path, lacks)
	}
	return binary, nil
}

// args are the options of a start, but for those that name processes and files.
func (n *Network) args() []string {
	bits := n.plan.Child4.Bits()
	args := []string{
		"--foreground", "--quiet",
		"--ns-ifname=" + n.cfg.Ifname, "--mtu=" + strconv.Itoa(n.cfg.MTU),
		"--address=" + n.plan.Child4.Addr().String(), "--netmask=" + strconv.Itoa(bits),
		"--gateway=" + n.plan.Gateway4.String(), "--dns-forward=" + n.plan.DNS4.String(),
		// The addresses are set already.
		"--no-dhcp", "--no-dhcpv6", "--no-ra",
	}
	if n.cfg.IPv6 {
		args = append(args,
			"--address="+n.plan.Child6.Addr().String(),
			"--gateway="+n.plan.Gateway6.String(), "--dns-forward="+n.plan.DNS6.String())
		if n.pesto != nil && !routesIPv6() {
			args = append(args, "--interface=lo")
		}
	} else {
		args = append(args, "--ipv4-only")
	}
	return append(append(args, n.loopbackArgs()...), n.portArgs()...)
}

// routesIPv6 reports whether the host has a default route of IPv6. Without one, pasta
// has no interface as its model, and then does not use the address that it was given:
// until something inside has sent a packet over IPv6, ports lead to [::] there, and
// the first reply from a UDP server is lost. Any interface will do as the model, since
// all that pasta would take from it is given, too.
func routesIPv6() bool {
	routes, err := netns.Undisturbed(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{Type: unix.RTN_UNICAST}, netlink.RT_FILTER_DST|netlink.RT_FILTER_TYPE)
	})
	return err != nil || len(routes) > 0
}

// loopbackArgs returns the options about the host's loopback: the gateway
// represents it, and by default pasta also splices connections to loopback
// addresses inside if only the host listens on their port.
func (n *Network) loopbackArgs() []string {
	if n.cfg.DisableHostLoopback {
		return []string{"--no-map-gw", "--tcp-ns=none", "--udp-ns=none"}
	}
	return []string{"--tcp-ns=auto", "--udp-ns=auto"}
}

func (n *Network) portArgs() []string {
	switch {
	case n.implicit():
		args := []string{"--tcp-ports=auto", "--udp-ports=auto"}
		// Versions without the option do so anyway.
		if n.binary.Has("--host-lo-to-ns-lo") {
			args = append(args, "--host-lo-to-ns-lo")
		}
		return args
	case n.pesto != nil:
		return []string{"--tcp-ports=none", "--udp-ports=none", "--conf-path=" + n.confSocket()}
	}
	return []string{"--tcp-ports=none", "--udp-ports=none"}
}
