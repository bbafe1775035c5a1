package sourceip

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"rootlesskit/internal/netns"
)

// loIndex is the index of lo in every network namespace.
const loIndex = 1

// A namespace without addresses gets these on lo, as the source of packets from
// elsewhere: the IPv4 dummy address of RFC 7600, and an address of the dummy IPv6
// prefix of RFC 9780, which no host ever has. The second is only added if a port leads
// to an IPv6 server, since programs would conclude that there is an IPv6 network.
var (
	dummy4 = netip.MustParsePrefix("192.0.0.8/32")
	dummy6 = netip.MustParsePrefix("100:0:0:1::8/128")
)

// maxInner bounds how many of a namespace's networks are reported, because of
// the size of a message.
const maxInner = 1000

// outside are addresses for documentation (RFC 5737, RFC 3849), which no host
// has. They are used for finding the default routes and for trying the marks.
var outside = [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}

// look gathers the basis of a plan from the calling thread's namespace, except
// rules, marks and conntrack. It also returns, for each family, the index of the
// interface that leads outside; 0 if there is none.
func look(req request) (v view, uplinks [2]int, err error) {
	v = view{udp: req.Proto == unix.IPPROTO_UDP, own: req.Kind == Own, target: req.Target.Addr(), deaf: req.Deaf}
	v.asked = req.Kind.asked(v.target)
	if v.listeners, err = netns.Listeners(req.Proto, req.Target.Port()); err != nil {
		return v, uplinks, err
	}
	v.v4.lo, v.v6.lo = loopback4.Addr(), loopback6.Addr()
	for i, f := range v.both() {
		uplinks[i] = f.look(families[i], outside[i])
		nets, err := netns.NeighbourNets(families[i], uplinks[i])
		if err != nil {
			return v, uplinks, err
		}
		v.inner = append(v.inner, nets...)
	}
	if err := v.settle(req); err != nil {
		return v, uplinks, err
	}
	if len(v.inner) > maxInner {
		return v, uplinks, fmt.Errorf("the namespace has %d routes, more than %d", len(v.inner), maxInner)
	}
	if req.Kind == Given {
		v.keepFamily()
	}
	if req.Family != 0 {
		v.v4.ensureOwn(dummy4)
	}
	if req.Family != 0 && v.target.Is6() && v.answers(v.v6) {
		v.v6.ensureOwn(dummy6)
	}
	if v.own {
		v.owned()
	}
	return v, uplinks, nil
}

// look finds the address that the kernel would use for packets to the outside,
// and returns the interface. If there is no route, it uses any address.
func (f *family) look(af int, outside netip.Addr) (uplink int) {
	routes, err := netlink.RouteGet(outside.AsSlice())
	if err == nil && len(routes) > 0 && routes[0].LinkIndex != loIndex {
		if src, ok := netip.AddrFromSlice(routes[0].Src); ok {
			f.own, f.routed = src.Unmap(), true
			return routes[0].LinkIndex
		}
	}
	addrs, err := netns.Undisturbed(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, af) })
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

// ensureOwn gives the namespace an address if it has none.
func (f *family) ensureOwn(dummy netip.Prefix) {
	if f.own.IsValid() {
		return
	}
	lo := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: loIndex, Name: "lo"}}
	if netlink.AddrReplace(lo, &netlink.Addr{IPNet: ipNet(dummy), Flags: unix.IFA_F_NODAD}) == nil && netns.AwaitLocal(dummy.Addr()) {
		f.own = dummy.Addr()
	}
}

// settle determines where the port leads. If the target's address is only the one
// on which the port is published, the namespace must have it, or a NAT rule must
// name it; otherwise packets would leave through the uplink and reach others,
// even the host.
func (v *view) settle(req request) error {
	v.nat = translated()
	if v.local = v.target.IsLoopback() || netns.IsLocal(v.target); v.local || !req.Kind.implied(v.target) {
		return nil
	}
	if v.nat {
		taken, err := natTakes(v.target)
		if err != nil || taken {
			return err
		}
	}
	v.target, v.local = v.targetFamily().lo, true
	return nil
}

// keepFamily forgets the servers of the other address family if the target was
// requested and its own family has none.
func (v *view) keepFamily() {
	if v.target.IsLoopback() && !v.answers(v.targetFamily()) {
		v.listeners = slices.DeleteFunc(v.listeners, func(a netip.Addr) bool { return a.Is4() != v.target.Is4() })
	}
}
