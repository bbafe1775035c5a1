package publish

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
)

// hasIPv6 reports whether the kernel has IPv6 at all (ipv6.disable=1 disables it),
// for both host and namespace.
func hasIPv6() bool {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return !errors.Is(err, unix.EAFNOSUPPORT)
}

// withoutIPv6 returns where a port leads that would otherwise lead to an IPv6 address. A
// port on all addresses then has only IPv4 clients, so it leads to the IPv4 address.
func withoutIPv6(spec api.PortSpec, to netip.AddrPort) (netip.AddrPort, error) {
	if spec.ChildIP == "" && to.Addr() == netip.IPv6Loopback() && spec.ParentIP != to.Addr().String() {
		return netip.AddrPortFrom(loopback4, to.Port()), nil
	}
	return to, fmt.Errorf("%s: the kernel has no IPv6: publish on an IPv4 address, and to one", to.Addr())
}
