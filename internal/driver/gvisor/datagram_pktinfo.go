package gvisor

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// A wildcard UDP socket must answer from the address that it was asked on:
// IP_PKTINFO (ip(7)) and IPV6_PKTINFO (ipv6(7)) tell and set it.

// wantPacketInfo makes a socket tell where its datagrams were sent to.
func wantPacketInfo(fd int, is6 bool) error {
	if is6 {
		return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1)
	}
	return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_PKTINFO, 1)
}

// localAddr is where a datagram was sent to, invalid if the socket does not
// tell.
func localAddr(oob []byte) netip.Addr {
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return netip.Addr{}
		}
		switch {
		case h.Level == unix.SOL_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			// ipi_ifindex, ipi_spec_dst, ipi_addr: the second is the one to
			// answer from.
			return netip.AddrFrom4([4]byte(data[4:8]))
		case h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			return netip.AddrFrom16([16]byte(data[:16]))
		}
		oob = rest
	}
	return netip.Addr{}
}

// packetInfo is the control message that sends from an address.
func packetInfo(local netip.Addr) []byte {
	switch {
	case local.Is4():
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: local.As4()})
	case local.Is6():
		return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: local.As16()})
	}
	return nil
}
