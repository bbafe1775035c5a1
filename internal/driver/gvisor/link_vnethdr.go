package gvisor

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// The virtio-net header (virtio 1.2, 5.1.6; struct virtio_net_hdr in
// linux/virtio_net.h) stands before each frame of a TAP device with
// IFF_VNET_HDR, in native byte order. It describes the work of a network card:
// the checksum to fill in, and the size of the segments into which to split a
// large packet.
const (
	vnetLen  = 10
	etherLen = header.EthernetMinimumSize
	headLen  = vnetLen + etherLen

	vnetNeedsCsum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM

	gsoNone  = 0
	gsoTCPv4 = 1
	gsoTCPv6 = 4
	gsoUDPL4 = 5 // Linux 6.2
)

// offloadSets are the offloads to request from the kernel, best first: USO
// needs Linux 6.2.
var offloadSets = []uint{
	unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_USO4 | unix.TUN_F_USO6,
	unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6,
	unix.TUN_F_CSUM,
}

// segmentSize returns the payload size of the UDP datagrams that a received
// packet represents; 0 if it is one datagram.
func segmentSize(vnet []byte) int {
	if vnet[1] != gsoUDPL4 {
		return 0
	}
	return int(binary.NativeEndian.Uint16(vnet[4:]))
}

// completeChecksum fills in a checksum that the kernel has left to the device and
// that is not the packet's own, but that of a packet in a tunnel (since Linux
// 6.17). The packet's own checksum is not used any further, but this one is checked
// at the tunnel's other end. The field contains the sum of the pseudo header
// (VIRTIO_NET_HDR_F_NEEDS_CSUM).
func completeChecksum(vnet, packet []byte) {
	if vnet[0]&vnetNeedsCsum == 0 || len(packet) == 0 {
		return
	}
	start := int(binary.NativeEndian.Uint16(vnet[6:])) - etherLen
	field := start + int(binary.NativeEndian.Uint16(vnet[8:]))
	own := header.IPv6MinimumSize
	if header.IPVersion(packet) == header.IPv4Version {
		own = int(header.IPv4(packet).HeaderLength())
	}
	if start <= own || field+2 > len(packet) {
		return
	}
	sum := ^checksum.Checksum(packet[start:], 0)
	if sum == 0 {
		sum = 0xffff // the same value, but not "no checksum" for UDP
	}
	binary.BigEndian.PutUint16(packet[field:], sum)
}

// putChecksumHeader writes the header of a packet whose checksum at
// transport+offset holds the pseudo header's sum.
func putChecksumHeader(vnet []byte, ipLen, offset int) {
	vnet[0] = vnetNeedsCsum
	binary.NativeEndian.PutUint16(vnet[6:], uint16(etherLen+ipLen))
	binary.NativeEndian.PutUint16(vnet[8:], uint16(offset))
}

// putSegments writes the header for a packet that is to be cut into segments.
func putSegments(vnet []byte, kind byte, size int) {
	vnet[1] = kind
	binary.NativeEndian.PutUint16(vnet[4:], uint16(size))
}

// putHeaderLen says how much stands before the payload, from the Ethernet header on: the
// kernel copies a large payload into pages of its own then, where it is aligned.
func putHeaderLen(vnet []byte, n int) { binary.NativeEndian.PutUint16(vnet[2:], uint16(n)) }
