package fdswap

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ParseAddress reads struct sockaddr_in and sockaddr_in6, and nothing else. An
// IPv4 address in an IPv6 one stays in its mapped form.
func ParseAddress(b []byte) (netip.AddrPort, bool) {
	if len(b) < 2 {
		return netip.AddrPort{}, false
	}
	switch family := binary.NativeEndian.Uint16(b); {
	case family == unix.AF_INET && len(b) >= unix.SizeofSockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:])), true
	case family == unix.AF_INET6 && len(b) >= unix.SizeofSockaddrInet6-4: // as the kernel, without sin6_scope_id
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])), binary.BigEndian.Uint16(b[2:])), true
	}
	return netip.AddrPort{}, false
}
