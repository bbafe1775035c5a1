package gvisor

import (
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"rootlesskit/internal/driver/gvisor/translate"
)

// datagrams handles the connectionless traffic of the namespace: UDP and pings.
// Plain packets come directly from the link and bypass the stack; the stack's
// handlers pass on the packets that the stack had to reassemble.
type datagrams struct {
	plan      *plan
	published *publishedUDP
	// translator is told of ICMP errors about TCP.
	translator *translate.Translator
	outbound   *outboundUDP
	dns        *dnsRelay
	pinger     *pinger
}

// intercept is link.intercept.
func (d *datagrams) intercept(b []byte, segment int) bool {
	p, ok := parseIP(b)
	if !ok || p.src.Is6() && !d.plan.hasIPv6() {
		return false
	}
	switch {
	case p.proto == uint8(header.UDPProtocolNumber):
		u, ok := parseUDP(p)
		if !ok {
			return false
		}
		u.segment = segment
		d.udp(u)
		return true
	case isEchoRequest(p) && !d.plan.isOwn(p.dst):
		d.pinger.send(p)
		return true
	}
	message, about, ok := parseUnreachable(p)
	switch {
	case !ok:
	case about.proto == header.TCPProtocolNumber:
		d.translator.Unreachable(about.src, about.dst, errnoFor(message, about.dst.Addr().Is6()))
		return true
	case about.proto == header.UDPProtocolNumber && message == portUnreachable.of(about.dst.Addr().Is6()):
		return d.published.refused(insideKey{about.src, about.dst})
	}
	return false
}

// udp handles a datagram of the namespace. It does not keep the datagram.
func (d *datagrams) udp(u datagram) {
	switch {
	case !u.src.Addr().IsValid() || u.src.Addr().IsUnspecified() || u.src.Addr().IsMulticast():
		// No address to answer to.
	case d.published.reply(u):
	case d.plan.isNameServer(u.dst):
		d.dns.query(u)
	default:
		d.outbound.send(u)
	}
}

// register makes the stack pass on reassembled packets.
func (d *datagrams) register(s *stack.Stack) {
	s.SetTransportProtocolHandler(udp.ProtocolNumber, d.handleUDP)
	s.SetTransportProtocolHandler(icmp.ProtocolNumber4, d.handleICMP)
	if d.plan.hasIPv6() {
		s.SetTransportProtocolHandler(icmp.ProtocolNumber6, d.handleICMP)
	}
}

func (d *datagrams) handleUDP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	d.udp(datagram{
		src:     remoteOf(id),
		dst:     localOf(id),
		ttl:     ttlOf(pkt),
		payload: pkt.Data().AsRange().ToSlice(),
	})
	return true
}

// handleICMP returns false for packets that the stack must answer itself.
func (d *datagrams) handleICMP(_ stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	p := packet{
		src:     netAddr(pkt.Network().SourceAddress()),
		dst:     netAddr(pkt.Network().DestinationAddress()),
		proto:   uint8(pkt.TransportProtocolNumber),
		ttl:     ttlOf(pkt),
		payload: append(append([]byte(nil), pkt.TransportHeader().Slice()...), pkt.Data().AsRange().ToSlice()...),
	}
	if !isEchoRequest(p) || d.plan.isOwn(p.dst) {
		return false
	}
	d.pinger.send(p)
	return true
}

// ttlOf returns the hop limit of a packet of the stack.
func ttlOf(pkt *stack.PacketBuffer) uint8 {
	b := pkt.NetworkHeader().Slice()
	if header.IPVersion(b) == header.IPv6Version {
		return header.IPv6(b).HopLimit()
	}
	return header.IPv4(b).TTL()
}

// echoProtocol returns ICMP's protocol number for an IP version.
func echoProtocol(is6 bool) tcpip.TransportProtocolNumber {
	if is6 {
		return header.ICMPv6ProtocolNumber
	}
	return header.ICMPv4ProtocolNumber
}

// close ends all flows, after the end of the context and of the link.
func (d *datagrams) close() {
	d.dns.wait()
	d.outbound.close()
	d.pinger.close()
}
