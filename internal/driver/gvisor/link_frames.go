package gvisor

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// packet is a parsed IP packet. It refers to the bytes that it was parsed from.
type packet struct {
	src, dst netip.Addr
	proto    uint8
	ttl      uint8
	payload  []byte
}

// parseIP parses an IP packet, if it is complete and plain: fragments, IPv4
// options, IPv6 extension headers and malformed packets are left to the stack.
func parseIP(b []byte) (packet, bool) {
	if len(b) == 0 {
		return packet{}, false
	}
	switch b[0] {
	case 0x45:
		return parseIPv4(b)
	case 0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f:
		return parseIPv6(b)
	}
	return packet{}, false
}

func parseIPv4(b []byte) (packet, bool) {
	if len(b) < header.IPv4MinimumSize {
		return packet{}, false
	}
	h := header.IPv4(b)
	size := int(h.TotalLength())
	if size < header.IPv4MinimumSize || size > len(b) || h.More() || h.FragmentOffset() != 0 {
		return packet{}, false
	}
	return packet{
		src:     netip.AddrFrom4([4]byte(b[12:16])),
		dst:     netip.AddrFrom4([4]byte(b[16:20])),
		proto:   h.Protocol(),
		ttl:     h.TTL(),
		payload: b[header.IPv4MinimumSize:size],
	}, true
}

func parseIPv6(b []byte) (packet, bool) {
	if len(b) < header.IPv6MinimumSize {
		return packet{}, false
	}
	h := header.IPv6(b)
	size := header.IPv6MinimumSize + int(h.PayloadLength())
	if size > len(b) {
		return packet{}, false
	}
	return packet{
		src:     netip.AddrFrom16([16]byte(b[8:24])),
		dst:     netip.AddrFrom16([16]byte(b[24:40])),
		proto:   h.NextHeader(),
		ttl:     h.HopLimit(),
		payload: b[header.IPv6MinimumSize:size],
	}, true
}

// flow names the two ends of a datagram or connection from inside. For a
// ping, the source port is its identifier.
type flow struct {
	proto    tcpip.TransportProtocolNumber
	src, dst netip.AddrPort
}

// datagram is what a UDP packet of the namespace carries.
type datagram struct {
	src, dst netip.AddrPort
	ttl      uint8
	payload  []byte
	// segment, if not 0, splits the payload into datagrams of that size.
	segment int
}

func parseUDP(p packet) (datagram, bool) {
	if len(p.payload) < header.UDPMinimumSize {
		return datagram{}, false
	}
	h := header.UDP(p.payload)
	if n := int(h.Length()); n < header.UDPMinimumSize || n > len(p.payload) || h.DestinationPort() == 0 {
		return datagram{}, false
	}
	return datagram{
		src:     netip.AddrPortFrom(p.src, h.SourcePort()),
		dst:     netip.AddrPortFrom(p.dst, h.DestinationPort()),
		ttl:     p.ttl,
		payload: p.payload[header.UDPMinimumSize:h.Length()],
	}, true
}

// parseUnreachable parses an ICMP "destination unreachable" of the namespace, about a
// packet that it was sent: what it says, and the flow from a peer to the namespace.
func parseUnreachable(p packet) (message icmpMessage, about flow, ok bool) {
	const head = 8 // of the message, and also the least that it quotes of the packet's payload
	if len(p.payload) < head {
		return message, about, false
	}
	message = icmpMessage{p.payload[0], p.payload[1]}
	quoted := p.payload[head:]
	var payload []byte
	switch {
	case p.proto == uint8(header.ICMPv4ProtocolNumber) && p.src.Is4() && message.kind == unreachable4:
		if len(quoted) < header.IPv4MinimumSize+head || quoted[0] != 0x45 {
			return message, about, false
		}
		about.proto, payload = tcpip.TransportProtocolNumber(quoted[9]), quoted[header.IPv4MinimumSize:]
		about.src = netip.AddrPortFrom(netip.AddrFrom4([4]byte(quoted[12:16])), binary.BigEndian.Uint16(payload))
		about.dst = netip.AddrPortFrom(netip.AddrFrom4([4]byte(quoted[16:20])), binary.BigEndian.Uint16(payload[2:]))
	case p.proto == uint8(header.ICMPv6ProtocolNumber) && p.src.Is6() && message.kind == unreachable6:
		if len(quoted) < header.IPv6MinimumSize+head || quoted[0]>>4 != 6 {
			return message, about, false
		}
		about.proto, payload = tcpip.TransportProtocolNumber(quoted[6]), quoted[header.IPv6MinimumSize:]
		about.src = netip.AddrPortFrom(netip.AddrFrom16([16]byte(quoted[8:24])), binary.BigEndian.Uint16(payload))
		about.dst = netip.AddrPortFrom(netip.AddrFrom16([16]byte(quoted[24:40])), binary.BigEndian.Uint16(payload[2:]))
	default:
		return message, about, false
	}
	return message, about, true
}

// defaultTTL is Linux's.
const defaultTTL = 64

// frameWriter writes packets to the namespace without the stack.
type frameWriter struct {
	link *link
	plan *plan
}

// frame is a packet under construction: the headers in front of a payload
// that stays where it is.
type frame struct {
	head [headLen + header.IPv6MinimumSize + header.UDPMinimumSize]byte
	n    int // bytes of head in use
}

// ip starts a frame with its IP header. size counts what follows.
func (f *frame) ip(l *link, src, dst netip.Addr, proto tcpip.TransportProtocolNumber, size int) {
	if dst.Is4() {
		l.putEther(f.head[vnetLen:], header.IPv4ProtocolNumber)
		h := header.IPv4(f.head[headLen:])
		h.Encode(&header.IPv4Fields{
			TotalLength: uint16(header.IPv4MinimumSize + size),
			TTL:         defaultTTL,
			Protocol:    uint8(proto),
			SrcAddr:     stackAddr(src),
			DstAddr:     stackAddr(dst),
		})
		h.SetChecksum(^h.CalculateChecksum())
		f.n = headLen + header.IPv4MinimumSize
		return
	}
	l.putEther(f.head[vnetLen:], header.IPv6ProtocolNumber)
	header.IPv6(f.head[headLen:]).Encode(&header.IPv6Fields{
		PayloadLength:     uint16(size),
		TransportProtocol: proto,
		HopLimit:          defaultTTL,
		SrcAddr:           stackAddr(src),
		DstAddr:           stackAddr(dst),
	})
	f.n = headLen + header.IPv6MinimumSize
}

// send writes the frame with its payload.
func (w *frameWriter) send(f *frame, payload []byte) {
	w.link.write(f.head[:f.n], payload)
}

// udp sends a datagram to the namespace. It may be larger than the MTU: the
// device takes any packet, and the namespace need not reassemble it. The
// checksum is left to the kernel, which will not need it.
func (w *frameWriter) udp(src, dst netip.AddrPort, payload []byte) {
	size := header.UDPMinimumSize + len(payload)
	var f frame
	f.ip(w.link, src.Addr(), dst.Addr(), header.UDPProtocolNumber, size)
	u := header.UDP(f.head[f.n:])
	sum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, stackAddr(src.Addr()), stackAddr(dst.Addr()), uint16(size))
	u.Encode(&header.UDPFields{SrcPort: src.Port(), DstPort: dst.Port(), Length: uint16(size), Checksum: sum})
	putChecksumHeader(f.head[:vnetLen], f.n-headLen, 6)
	f.n += header.UDPMinimumSize
	putHeaderLen(f.head[:vnetLen], f.n-vnetLen)
	w.send(&f, payload)
}

// icmp sends an ICMP message, whose checksum is still 0, to the namespace.
func (w *frameWriter) icmp(src, dst netip.Addr, message []byte) {
	proto := header.ICMPv4ProtocolNumber
	sum := uint16(0)
	if dst.Is6() {
		proto = header.ICMPv6ProtocolNumber
		sum = header.PseudoHeaderChecksum(proto, stackAddr(src), stackAddr(dst), uint16(len(message)))
	}
	binary.BigEndian.PutUint16(message[2:], ^checksum.Checksum(message, sum))
	var f frame
	f.ip(w.link, src, dst, proto, len(message))
	w.send(&f, message)
}

// icmpError sends an ICMP error about a packet of a flow, and quotes what
// identifies the flow.
func (w *frameWriter) icmpError(from netip.Addr, kind, code byte, rest uint32, f flow, seq uint32) {
	const head, quoted = 8, 8
	var b [head + header.IPv6MinimumSize + quoted]byte
	b[0], b[1] = kind, code
	binary.BigEndian.PutUint32(b[4:], rest)
	var original frame
	original.ip(w.link, f.src.Addr(), f.dst.Addr(), f.proto, quoted)
	n := head + copy(b[head:], original.head[headLen:original.n])
	putQuote(b[n:n+quoted], f, seq)
	w.icmp(from, f.src.Addr(), b[:n+quoted])
}

// putQuote writes the first 8 bytes of a transport header.
func putQuote(b []byte, f flow, seq uint32) {
	switch f.proto {
	case header.ICMPv4ProtocolNumber, header.ICMPv6ProtocolNumber:
		b[0] = byte(header.ICMPv4Echo)
		if f.proto == header.ICMPv6ProtocolNumber {
			b[0] = byte(header.ICMPv6EchoRequest)
		}
		binary.BigEndian.PutUint16(b[4:], f.src.Port())
		binary.BigEndian.PutUint16(b[6:], uint16(seq))
	default:
		binary.BigEndian.PutUint16(b, f.src.Port())
		binary.BigEndian.PutUint16(b[2:], f.dst.Port())
		binary.BigEndian.PutUint32(b[4:], seq) // for UDP: length and checksum, which no one checks
	}
}
