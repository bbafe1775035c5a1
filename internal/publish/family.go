package publish

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
)

// hasIPv6 reports whether the kernel has IPv6 at all (ipv6.disable=1 takes it away):
// host and namespace are the same there.
func hasIPv6() bool {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return !errors.Is(err, unix.EAFNOSUPPORT)
}

// withoutIPv6 is where a port leads that would lead to an IPv6 address. One that is open
// on all addresses has IPv4 clients alone, and their server is there too.
func withoutIPv6(spec api.PortSpec, to netip.AddrPort) (netip.AddrPort, error) {
	if spec.ChildIP == "" && to.Addr() == netip.IPv6Loopback() && spec.ParentIP != to.Addr().String() {
		return netip.AddrPortFrom(loopback4, to.Port()), nil
	}
	return to, fmt.Errorf("%s: the kernel has no IPv6: publish on an IPv4 address, and to one", to.Addr())
}
