package sockio

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ControlSize is enough for the control messages of a relayed datagram:
// IP_PKTINFO or IPV6_PKTINFO, and UDP_GRO or UDP_SEGMENT.
const ControlSize = 96

// Info has the contents of a received datagram's control messages.
type Info struct {
	// Segment, if not 0, says that the message consists of several datagrams with
	// this many bytes each; the last may be shorter.
	Segment int
	// Local is the address that the datagram was sent to, an IPv4 address in
	// mapped form; zero if the socket does not report it.
	Local [16]byte
	// Interface is the interface of Local, for IPv6 only.
	Interface uint32
}

// LocalAddr returns Local; invalid if the socket does not report it.
func (i *Info) LocalAddr() netip.Addr {
	if i.Local == [16]byte{} {
		return netip.Addr{}
	}
	return netip.AddrFrom16(i.Local).Unmap()
}

// TellLocal makes a UDP socket on a wildcard address report the addresses that its
// datagrams were sent to, from which answers have to come.
func TellLocal(fd, family int) error {
	if family == unix.AF_INET6 {
		return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1)
	}
	return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_PKTINFO, 1)
}

// ParseInfo parses control messages.
func ParseInfo(b []byte) (info Info) {
	for {
		h, data, rest := NextControl(b)
		switch {
		case h == nil:
			return info
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(data) >= 4:
			info.Segment = int(int32(binary.NativeEndian.Uint32(data)))
		case h.Level == unix.SOL_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			// ipi_spec_dst: for a broadcast, it is the address to answer from.
			info.Local = Mapped([4]byte(data[4:]))
		case h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			info.Local = [16]byte(data)
			info.Interface = binary.NativeEndian.Uint32(data[16:])
		}
		b = rest
	}
}

// NextControl returns the first control message; nil if there is none, or if it is
// malformed.
func NextControl(b []byte) (h *unix.Cmsghdr, data, rest []byte) {
	if len(b) < unix.SizeofCmsghdr {
		return nil, nil, nil
	}
	h = (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	size := int(h.Len)
	if size < unix.CmsgLen(0) || size > len(b) {
		return nil, nil, nil
	}
	data = b[unix.CmsgLen(0):size]
	return h, data, b[min(unix.CmsgSpace(len(data)), len(b)):]
}

// AppendSegment appends the control message that splits a message into
// datagrams (UDP_SEGMENT in udp(7), Linux 4.18).
func AppendSegment(b []byte, size int) []byte {
	b, data := appendControl(b, unix.SOL_UDP, unix.UDP_SEGMENT, 2)
	binary.NativeEndian.PutUint16(data, uint16(size))
	return b
}

// AppendLocal appends the control message that makes a socket of a family send
// from the address in info.
func AppendLocal(b []byte, family int, info *Info) []byte {
	if family == unix.AF_INET {
		b, data := appendControl(b, unix.SOL_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		copy(data[4:8], info.Local[12:]) // ipi_spec_dst
		return b
	}
	b, data := appendControl(b, unix.SOL_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
	copy(data, info.Local[:])
	if info.Local[0] == 0xfe && info.Local[1]&0xc0 == 0x80 { // link-local: valid on that interface
		binary.NativeEndian.PutUint32(data[16:], info.Interface)
	}
	return b
}

// AppendInt appends a control message with an int.
func AppendInt(b []byte, level, kind int, value int32) []byte {
	b, data := appendControl(b, int32(level), int32(kind), 4)
	binary.NativeEndian.PutUint32(data, uint32(value))
	return b
}

// appendControl appends the header of a control message, and its data as zeros.
func appendControl(b []byte, level, kind int32, size int) (all, data []byte) {
	start := len(b)
	b = append(b, make([]byte, unix.CmsgSpace(size))...)
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[start]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(size))
	return b, b[start+unix.CmsgLen(0) : start+unix.CmsgLen(size)]
}
