package sourceip

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
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

// maxInner bounds what is told of a namespace's networks, for the size of a
// message.
const maxInner = 1000

// outside are addresses for documentation (RFC 5737, RFC 3849), to ask for the
// default routes with.
var outside = [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}

// look gathers what a plan follows from, of the calling thread's namespace,
// but for rules, marks and conntrack. It also returns the index of the interface
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
	if len(v.inner) > maxInner {
		return v, uplinks, fmt.Errorf("the namespace has %d routes, more than %d", len(v.inner), maxInner)
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
	addrs, err := undisturbed(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, af) })
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
	routes, err := undisturbed(func() ([]netlink.Route, error) { return netlink.RouteList(nil, af) }) // the main table
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

// undisturbed repeats a listing that changes have come in between of.
func undisturbed[T any](list func() (T, error)) (all T, err error) {
	for range 10 {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}

// tracked tells whether conntrack is at work in the calling thread's namespace:
// then there may be NAT, by whatever tool, and what conntrack costs is paid. It
// looks whether a datagram leaves an entry.
func tracked() bool {
	if err := sendToSelf(); err != nil {
		return true // cannot tell
	}
	// /proc/sys/net shows the namespace of the thread that reads it.
	count, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
	if errors.Is(err, os.ErrNotExist) {
		return false // a kernel without
	}
	return err != nil || strings.TrimSpace(string(count)) != "0"
}

// sendToSelf sends an empty datagram on lo.
func sendToSelf() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback4.Addr().As4()}); err != nil {
		return err
	}
	self, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	return unix.Sendto(fd, nil, 0, self)
}
