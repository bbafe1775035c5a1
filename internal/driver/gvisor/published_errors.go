package gvisor

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// unreachableTCP returns the two ends of the TCP segment to the namespace that an ICMP
// error of the namespace is about, and what the error means: no host has the address of
// a container, for example.
func unreachableTCP(p packet) (source, target netip.AddrPort, errno unix.Errno) {
	const head = 8 // of the message
	if len(p.payload) < head+header.IPv4MinimumSize+4 {
		return source, target, 0
	}
	kind, code, quoted := p.payload[0], p.payload[1], p.payload[head:]
	var ports []byte
	switch {
	case p.proto == uint8(header.ICMPv4ProtocolNumber) && kind == unreachable4 && quoted[0] == 0x45 && quoted[9] == uint8(header.TCPProtocolNumber):
		source = netip.AddrPortFrom(netip.AddrFrom4([4]byte(quoted[12:])), 0)
		target = netip.AddrPortFrom(netip.AddrFrom4([4]byte(quoted[16:])), 0)
		ports, errno = quoted[header.IPv4MinimumSize:], unreachableErrno4(code)
	case p.proto == uint8(header.ICMPv6ProtocolNumber) && kind == unreachable6 && len(quoted) >= header.IPv6MinimumSize+4 &&
		quoted[0]>>4 == 6 && quoted[6] == uint8(header.TCPProtocolNumber):
		source = netip.AddrPortFrom(netip.AddrFrom16([16]byte(quoted[8:])), 0)
		target = netip.AddrPortFrom(netip.AddrFrom16([16]byte(quoted[24:])), 0)
		ports, errno = quoted[header.IPv6MinimumSize:], unreachableErrno6(code)
	default:
		return source, target, 0
	}
	source = netip.AddrPortFrom(source.Addr(), binary.BigEndian.Uint16(ports))
	target = netip.AddrPortFrom(target.Addr(), binary.BigEndian.Uint16(ports[2:]))
	return source, target, errno
}

// unreachableErrno4 is as icmp_err_convert of the kernel has it (net/ipv4/icmp.c).
func unreachableErrno4(code byte) unix.Errno {
	switch code {
	case byte(header.ICMPv4NetUnreachable):
		return unix.ENETUNREACH
	case byte(header.ICMPv4PortUnreachable):
		return unix.ECONNREFUSED
	}
	return unix.EHOSTUNREACH
}

// unreachableErrno6 is the same for IPv6 (net/ipv6/icmp.c).
func unreachableErrno6(code byte) unix.Errno {
	switch code {
	case byte(header.ICMPv6NetworkUnreachable):
		return unix.ENETUNREACH
	case byte(header.ICMPv6Prohibited):
		return unix.EACCES
	case byte(header.ICMPv6PortUnreachable):
		return unix.ECONNREFUSED
	}
	return unix.EHOSTUNREACH
}
