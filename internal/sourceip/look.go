package sourceip

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"rootlesskit/internal/netns"
)

// loIndex is the index of lo in every network namespace.
const loIndex = 1

// dummy is the address that a namespace without one gets on lo: the IPv4 dummy
// address of RFC 7600, which no host ever has.
var dummy = netip.MustParsePrefix("192.0.0.8/32")

// outside are addresses for documentation (RFC 5737, RFC 3849), to ask for the
// default routes with.
var outside = [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}

// look gathers what a plan follows from, of the calling thread's namespace,
// but for rules, marks and NAT. It also returns the index of the interface
// that leads outside for each family, 0 for none.
func look(req request) (v view, uplinks [2]int, err error) {
	v = view{udp: req.Proto == unix.IPPROTO_UDP, target: req.Target.Addr()}
	if v.listeners, err = netns.Listeners(req.Proto, req.Target.Port()); err != nil {
		return v, uplinks, err
	}
	v.v4.lo, v.v6.lo = loopback4.Addr(), loopback6.Addr()
	for i, f := range v.both() {
		uplinks[i] = f.look(families[i], outside[i])
		nets, err := inner(families[i], uplinks[i])
		if err != nil {
			return v, uplinks, err
		}
		v.inner = append(v.inner, nets...)
	}
	if !v.v4.own.IsValid() && addDummy() == nil {
		v.v4.own = dummy.Addr()
	}
	return v, uplinks, nil
}

// look finds the address that the kernel would use towards the outside, and
// returns the interface; where there is no route, any address will do.
func (f *family) look(af int, outside netip.Addr) (uplink int) {
	routes, err := netlink.RouteGet(outside.AsSlice())
	if err == nil && len(routes) > 0 && routes[0].LinkIndex != loIndex {
		if src, ok := netip.AddrFromSlice(routes[0].Src); ok {
			f.own, f.routed = src.Unmap(), true
			return routes[0].LinkIndex
		}
	}
	addrs, err := netlink.AddrList(nil, af)
	if err != nil {
		return 0 // a kernel without the family
	}
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP)
		if ok && a.Scope == unix.RT_SCOPE_UNIVERSE && !ip.IsLoopback() {
			f.own = ip.Unmap()
			return 0
		}
	}
	return 0
}

func addDummy() error {
	lo := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: loIndex, Name: "lo"}}
	return netlink.AddrReplace(lo, &netlink.Addr{IPNet: ipNet(dummy)})
}

// inner lists the networks that the namespace reaches other than by its
// default route's interface.
func inner(af, uplink int) ([]netip.Prefix, error) {
	routes, err := netlink.RouteList(nil, af) // the main table
	if err != nil {
		return nil, fmt.Errorf("listing routes: %w", err)
	}
	var nets []netip.Prefix
	for _, r := range routes {
		if r.Dst == nil || r.Type != unix.RTN_UNICAST || r.LinkIndex == uplink || r.LinkIndex == loIndex {
			continue
		}
		ones, _ := r.Dst.Mask.Size()
		ip, ok := netip.AddrFromSlice(r.Dst.IP)
		if ok && ones > 0 && !(ip.Is6() && ip.IsLinkLocalUnicast()) {
			nets = append(nets, netip.PrefixFrom(ip, ones))
		}
	}
	return nets, nil
}

// hasNAT tells whether the calling thread's namespace translates addresses,
// by nf_tables (nft, iptables-nft) or by the older iptables.
func hasNAT() bool {
	for _, name := range []string{"ip_tables_names", "ip6_tables_names"} {
		tables, _ := os.ReadFile("/proc/thread-self/net/" + name)
		if slices.Contains(strings.Fields(string(tables)), "nat") {
			return true
		}
	}
	return nftHasNAT()
}
