package relay

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// recvmmsg and sendmmsg never block; see sys.go on raw system calls.

func recvmmsg(fd int, msgs []mmsghdr) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&msgs[0])),
		uintptr(len(msgs)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

func sendmmsg(fd int, msgs []mmsghdr) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&msgs[0])),
		uintptr(len(msgs)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// udpControlSize holds one IP_PKTINFO or IPV6_PKTINFO and one UDP_GRO or
// UDP_SEGMENT, with room to spare.
const udpControlSize = 96

// udpInfo is what the control messages of a received message say.
type udpInfo struct {
	gro     int      // not 0: several datagrams of as many bytes each, the last of the rest
	local   [16]byte // the address that was asked, as IPv6; zero on a specific listener
	ifindex uint32   // of that address, IPv6 only
}

func parseUDPControl(b []byte) (info udpInfo) {
	for len(b) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		size := int(h.Len)
		if size < unix.CmsgLen(0) || size > len(b) {
			return info
		}
		data := b[unix.CmsgLen(0):size]
		switch {
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(data) >= 4:
			info.gro = int(int32(binary.NativeEndian.Uint32(data)))
		case h.Level == unix.SOL_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			// ipi_spec_dst, which for a broadcast is the address to answer from.
			info.local = mapped([4]byte(data[4:]))
		case h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			info.local = [16]byte(data)
			info.ifindex = binary.NativeEndian.Uint32(data[16:])
		}
		b = b[min(unix.CmsgSpace(len(data)), len(b)):]
	}
	return info
}

// mapped is an IPv4 address in IPv6's form.
func mapped(v4 [4]byte) [16]byte {
	return [16]byte{10: 0xff, 11: 0xff, 12: v4[0], 13: v4[1], 14: v4[2], 15: v4[3]}
}

// putUDPSegment writes the control message that cuts a message into datagrams.
func putUDPSegment(b []byte, size int) int {
	data := putCmsg(b, unix.SOL_UDP, unix.UDP_SEGMENT, 2)
	binary.NativeEndian.PutUint16(data, uint16(size))
	return unix.CmsgSpace(2)
}

// putPktinfo writes the control message that sends from a local address.
func putPktinfo(b []byte, family int, info *udpInfo) int {
	if family == unix.AF_INET {
		data := putCmsg(b, unix.SOL_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		copy(data[4:8], info.local[12:]) // ipi_spec_dst
		return unix.CmsgSpace(unix.SizeofInet4Pktinfo)
	}
	data := putCmsg(b, unix.SOL_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
	copy(data, info.local[:])
	if info.local[0] == 0xfe && info.local[1]&0xc0 == 0x80 { // link-local: of that interface
		binary.NativeEndian.PutUint32(data[16:], info.ifindex)
	}
	return unix.CmsgSpace(unix.SizeofInet6Pktinfo)
}

// putCmsg writes the header of a control message and returns its zeroed data.
func putCmsg(b []byte, level, typ int32, size int) []byte {
	clear(b[:unix.CmsgSpace(size)])
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = level, typ
	h.SetLen(unix.CmsgLen(size))
	return b[unix.CmsgLen(0):unix.CmsgLen(size)]
}
