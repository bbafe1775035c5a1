package gvisor

import (
	"errors"
	"log/slog"
	"net/netip"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"rootlesskit/internal/driver/gvisor/translate"
	"rootlesskit/internal/fdlimit"
)

// outboundTCP connects the namespace's TCP to the outside. A SYN from inside is
// answered only after the host has connected to the destination, so a destination that
// refuses or cannot be reached looks the same from inside.
type outboundTCP struct {
	log       *slog.Logger
	plan      *plan
	policy    *policy
	frames    *frameWriter
	socket    socketFunc
	resolvers *resolvers
	loop      *loop
}

func newOutboundTCP(n *Network, frames *frameWriter) *outboundTCP {
	return &outboundTCP{log: n.log, plan: &n.plan, policy: &n.policy, frames: frames, socket: n.socket, resolvers: n.resolvers, loop: n.loop}
}

// translate makes the Translator of a link, which calls what is here with the turn.
func (o *outboundTCP) translate(mtu int, l *link) *translate.Translator {
	return translate.New(translate.Config{
		Link: l, MTU: mtu, Max: min(maxConnections, fdlimit.Get()/2), Dial: o.dial, Reject: o.reject, Now: o.loop.now,
	})
}

func (o *outboundTCP) reject(err error, source, target netip.AddrPort, seq uint32) {
	o.log.Debug("outbound connection failed", "to", target, "error", err)
	o.frames.reject(err, flow{proto: header.TCPProtocolNumber, src: source, dst: target}, seq)
}

// registerTCP makes the stack pass on segments of packets that it had to reassemble.
func registerTCP(s *stack.Stack, t *translate.Translator) {
	s.SetTransportProtocolHandler(tcp.ProtocolNumber, func(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
		segment := append(append([]byte(nil), pkt.TransportHeader().Slice()...), pkt.Data().AsRange().ToSlice()...)
		t.Segment(remoteOf(id).Addr(), localOf(id).Addr(), segment)
		return true
	})
}

// errForged says that no genuine packet has such addresses. It gets no answer.
var errForged = errors.New("a connection between addresses that none can have")

// dial connects to the address, as translated for the host.
func (o *outboundTCP) dial(source, target netip.AddrPort) (translate.Socket, error) {
	from := source.Addr()
	if !from.IsGlobalUnicast() && !from.IsLinkLocalUnicast() || from.Is6() && !o.plan.hasIPv6() || target.Port() == 0 {
		return nil, errForged
	}
	h := &hostTCP{loop: o.loop, socket: o.socket}
	if o.plan.isNameServer(target) {
		return h, h.connectAny(o.resolvers.servers())
	}
	addr, v := o.policy.outbound(target.Addr())
	switch v {
	case allow:
		return h, h.connect(netip.AddrPortFrom(addr, target.Port()))
	case refuse:
		return nil, unix.ECONNREFUSED
	case discard:
		return nil, errForged
	}
	return nil, verdictError(v)
}
