package gvisor

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// partial is a packet whose transport's checksum is left to the device, and where
// that checksum is.
func partial(src, dst string, proto tcpip.TransportProtocolNumber, size int) (packet []byte, start, offset int) {
	transport := make([]byte, size)
	for i := range transport {
		transport[i] = byte(i * 7)
	}
	a, b := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	offset = 6
	if proto == header.TCPProtocolNumber {
		offset = 16
		header.TCP(transport).SetDataOffset(header.TCPMinimumSize)
	} else {
		binary.BigEndian.PutUint16(transport[4:], uint16(size))
	}
	sum := header.PseudoHeaderChecksum(proto, stackAddr(a), stackAddr(b), uint16(size))
	binary.BigEndian.PutUint16(transport[offset:], sum)
	packet = ipPacket(a, b, proto, transport)
	return packet, len(packet) - size, offset
}

// valid reports whether the transport's checksum of a packet is right.
func valid(packet []byte, start int) bool {
	p, ok := parseIP(packet)
	if !ok {
		return false
	}
	sum := header.PseudoHeaderChecksum(tcpip.TransportProtocolNumber(p.proto), stackAddr(p.src), stackAddr(p.dst), uint16(len(packet)-start))
	return checksum.Checksum(packet[start:], sum) == 0xffff
}

// TestChecksumsInTunnels: a checksum inside of a tunnel is filled in, whatever the
// tunnel, and a packet's own is left alone.
func TestChecksumsInTunnels(t *testing.T) {
	ether := make([]byte, header.EthernetMinimumSize)
	for name, encapsulation := range map[string][]byte{
		"VXLAN":                 append([]byte{8, 0, 0, 0, 0, 0, 1, 0}, ether...),
		"Geneve":                append([]byte{0, 0, 0x65, 0x58, 0, 0, 1, 0}, ether...),
		"Geneve with an option": append([]byte{1, 0, 0x65, 0x58, 0, 0, 1, 0, 1, 2, 3, 4}, ether...),
		"GRE in UDP":            {0, 0, 8, 0},
		"IP in UDP":             {},
	} {
		for _, outer := range [][2]string{{"10.0.2.100", "198.51.100.7"}, {"fdc8:5a1d:66e7::100", "2001:db8:7::7"}} {
			for _, inner := range [][2]string{{"10.244.1.5", "10.244.2.5"}, {"fd00:1::5", "fd00:2::5"}} {
				for _, proto := range []tcpip.TransportProtocolNumber{header.TCPProtocolNumber, header.UDPProtocolNumber} {
					for _, size := range []int{20, 21, 1400, 60_000} {
						carried, start, offset := partial(inner[0], inner[1], proto, size)
						payload := slices.Concat(encapsulation, carried)
						packet := udpPacket(netip.AddrPortFrom(netip.MustParseAddr(outer[0]), 4444),
							netip.AddrPortFrom(netip.MustParseAddr(outer[1]), 4789), payload)
						var vnet [headLen]byte
						at := len(packet) - len(carried)
						putChecksumHeader(vnet[:], at+start, offset)
						if valid(packet[at:], start) {
							t.Fatal("the checksum is complete already")
						}
						completeChecksum(vnet[:], packet)
						if !valid(packet[at:], start) {
							t.Errorf("%s, %v in %v, protocol %d, %d bytes: the checksum inside is wrong", name, inner, outer, proto, size)
						}
					}
				}
			}
		}
	}
}

func TestOwnChecksumIsLeftAlone(t *testing.T) {
	for _, ends := range [][2]string{{"10.0.2.100", "198.51.100.7"}, {"fdc8:5a1d:66e7::100", "2001:db8:7::7"}} {
		packet, start, offset := partial(ends[0], ends[1], header.UDPProtocolNumber, 100)
		for _, c := range []struct{ start, offset int }{
			{start, offset}, {0, 0}, {len(packet), 0}, {len(packet) - 1, 0}, {start + 8, 1 << 15}, {1 << 15, 6},
		} {
			var vnet [headLen]byte
			putChecksumHeader(vnet[:], c.start, c.offset)
			got := slices.Clone(packet)
			completeChecksum(vnet[:], got)
			if !slices.Equal(got, packet) {
				t.Errorf("%v with the checksum at %d+%d: was changed", ends, c.start, c.offset)
			}
		}
	}
	completeChecksum(make([]byte, headLen), nil)
}
