package userlandproxy

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// outside are addresses for documentation (RFC 5737, RFC 3849), which no host
// has. They are used for finding the default routes.
var outside = [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}

// checkNeighbour returns an error if an address is not that of a neighbour on a
// bridge of the calling thread's network namespace.
func checkNeighbour(ip netip.Addr) error {
	if !ip.IsGlobalUnicast() {
		return fmt.Errorf("%s is not the address of a container", ip)
	}
	route, err := routeTo(ip)
	if err != nil {
		return fmt.Errorf("the route to %s: %w", ip, err)
	}
	switch {
	case route.Type != unix.RTN_UNICAST:
		return fmt.Errorf("%s is the namespace's own address, or is not in use", ip)
	case len(route.Gw) > 0, route.Via != nil, len(route.MultiPath) > 0:
		return fmt.Errorf("%s is behind a gateway", ip)
	case isUplink(route.LinkIndex):
		return fmt.Errorf("%s is on the network of the uplink", ip)
	}
	link, err := netlink.LinkByIndex(route.LinkIndex)
	if err != nil {
		return fmt.Errorf("the interface to %s: %w", ip, err)
	}
	if link.Type() != "bridge" {
		return fmt.Errorf("%s is on %s, which is not a bridge", ip, link.Attrs().Name)
	}
	return nil
}

func routeTo(ip netip.Addr) (netlink.Route, error) {
	routes, err := netlink.RouteGet(ip.AsSlice())
	if err == nil && len(routes) != 1 {
		err = fmt.Errorf("%d routes", len(routes))
	}
	if err != nil {
		return netlink.Route{}, err
	}
	return routes[0], nil
}

// isUplink reports whether an interface has a default route.
func isUplink(index int) bool {
	for _, ip := range outside {
		if route, err := routeTo(ip); err == nil && route.LinkIndex == index {
			return true
		}
	}
	return false
}
