package translate

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// flow is the two ends of a connection. IPv4 addresses are in mapped form: as a key,
// these are hashed faster than a netip.Addr.
type flow struct {
	inside, outside         [16]byte
	insidePort, outsidePort uint16
	v4                      bool
}

// flowOf is the flow between an address of the namespace and one outside, which are of
// the same family.
func flowOf(inside, outside netip.AddrPort) flow {
	return flow{
		inside: inside.Addr().As16(), outside: outside.Addr().As16(), v4: outside.Addr().Is4(),
		insidePort: inside.Port(), outsidePort: outside.Port(),
	}
}

func (f *flow) source() netip.AddrPort { return netip.AddrPortFrom(f.addr(f.inside), f.insidePort) }

func (f *flow) target() netip.AddrPort { return netip.AddrPortFrom(f.addr(f.outside), f.outsidePort) }

// addr leaves the mapped addresses of an IPv6 packet as they are: they are not to be
// taken for those of IPv4.
func (f *flow) addr(b [16]byte) netip.Addr {
	if f.v4 {
		return netip.AddrFrom16(b).Unmap()
	}
	return netip.AddrFrom16(b)
}

// segment is a parsed TCP segment of the namespace. It refers to its packet.
type segment struct {
	flow     flow
	seq, ack uint32
	window   uint16
	flags    header.TCPFlags
	options  []byte
	payload  []byte
}

// parse parses an IP packet with a whole TCP segment. Fragments and IPv6 packets with
// extension headers are not for this package.
func parse(b []byte) (s segment, ok bool) {
	if len(b) == 0 {
		return s, false
	}
	switch b[0] >> 4 {
	case header.IPv4Version:
		return parse4(b)
	case header.IPv6Version:
		return parse6(b)
	}
	return s, false
}

func parse4(b []byte) (s segment, ok bool) {
	if len(b) < header.IPv4MinimumSize || b[9] != uint8(header.TCPProtocolNumber) {
		return s, false
	}
	h := header.IPv4(b)
	head, size := int(h.HeaderLength()), int(h.TotalLength())
	if head < header.IPv4MinimumSize || size < head || size > len(b) || h.More() || h.FragmentOffset() != 0 {
		return s, false
	}
	s.flow = flow{inside: mapped([4]byte(b[12:])), outside: mapped([4]byte(b[16:])), v4: true}
	return s, s.parseTCP(b[head:size])
}

func parse6(b []byte) (s segment, ok bool) {
	if len(b) < header.IPv6MinimumSize || b[6] != uint8(header.TCPProtocolNumber) {
		return s, false
	}
	size := header.IPv6MinimumSize + int(header.IPv6(b).PayloadLength())
	if size > len(b) {
		return s, false
	}
	s.flow = flow{inside: [16]byte(b[8:]), outside: [16]byte(b[24:])}
	return s, s.parseTCP(b[header.IPv6MinimumSize:size])
}

func mapped(v4 [4]byte) [16]byte {
	return [16]byte{10: 0xff, 11: 0xff, 12: v4[0], 13: v4[1], 14: v4[2], 15: v4[3]}
}

func (s *segment) parseTCP(b []byte) bool {
	if len(b) < header.TCPMinimumSize {
		return false
	}
	t := header.TCP(b)
	offset := int(t.DataOffset())
	if offset < header.TCPMinimumSize || offset > len(b) {
		return false
	}
	s.flow.insidePort, s.flow.outsidePort = t.SourcePort(), t.DestinationPort()
	s.seq, s.ack, s.window, s.flags = t.SequenceNumber(), t.AckNumber(), t.WindowSize(), t.Flags()
	s.options, s.payload = b[header.TCPMinimumSize:offset], b[offset:]
	return true
}

func (s *segment) has(f header.TCPFlags) bool { return s.flags&f != 0 }

// opens reports whether the segment begins a connection.
func (s *segment) opens() bool {
	const mask = header.TCPFlagSyn | header.TCPFlagAck | header.TCPFlagRst | header.TCPFlagFin
	return s.flags&mask == header.TCPFlagSyn
}

// length is the space that the segment takes in the sequence.
func (s *segment) length() uint32 {
	n := uint32(len(s.payload))
	if s.has(header.TCPFlagFin) {
		n++
	}
	return n
}

const (
	defaultMSS = 536 // RFC 9293, 3.7.1
	minMSS     = 88  // Linux: TCP_MIN_MSS
	maxScale   = 14  // RFC 7323, 2.3
)

// synOptions are the options that matter of those that a SYN has.
type synOptions struct {
	mss    uint16
	scaled bool
	scale  uint8
}

// parseOptions reads the options of a SYN; malformed ones end the list.
func parseOptions(b []byte) synOptions {
	o := synOptions{mss: defaultMSS}
	for len(b) > 0 {
		switch b[0] {
		case header.TCPOptionEOL:
			return o
		case header.TCPOptionNOP:
			b = b[1:]
			continue
		}
		if len(b) < 2 || b[1] < 2 || int(b[1]) > len(b) {
			return o
		}
		switch {
		case b[0] == header.TCPOptionMSS && b[1] == 4:
			o.mss = max(minMSS, binary.BigEndian.Uint16(b[2:]))
		case b[0] == header.TCPOptionWS && b[1] == 3:
			o.scaled, o.scale = true, min(b[2], maxScale)
		}
		b = b[b[1]:]
	}
	return o
}
