package gvisor

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"rootlesskit/internal/fdlimit"
	"rootlesskit/internal/sockio"
)

const (
	// maxSources bounds the sockets that outbound UDP has in the host.
	maxSources = 2048
	// udpIdle is how long a flow may be silent (RFC 4787, REQ-5: not less than
	// two minutes).
	udpIdle = 2 * time.Minute
)

// outboundUDP carries datagrams from the namespace to the outside and back.
//
// Each sending address and port of the namespace has one socket in the host,
// whatever its destinations: the mapping is independent of the endpoint, as RFC
// 4787 (REQ-1) demands for NAT traversal, and a scan of many ports costs one
// socket. ICMP errors come back as ICMP errors. Datagrams from the server of a
// published port leave from that port.
type outboundUDP struct {
	log     *slog.Logger
	plan    *plan
	policy  *policy
	frames  *frameWriter
	socket  socketFunc
	sources *flowTable[netip.AddrPort, *udpSource]
	// published has the published ports, from which the datagrams of their servers leave.
	published *publishedUDP
	readers   sync.WaitGroup
}

// udpSource is a sending address and port of the namespace. Only the link's
// reader sends through it.
type udpSource struct {
	*outboundUDP
	inside netip.AddrPort
	socket *dgramSocket

	lastDst netip.AddrPort // the address in lastTo
	lastTo  sockio.Addr
}

func newOutboundUDP(log *slog.Logger, p *plan, pol *policy, w *frameWriter, socket socketFunc, published *publishedUDP) *outboundUDP {
	o := &outboundUDP{log: log, plan: p, policy: pol, frames: w, socket: socket, published: published}
	o.sources = newFlowTable(min(maxSources, fdlimit.Get()/4), udpIdle, func(_ netip.AddrPort, s *udpSource) { s.socket.close() })
	return o
}

func (o *outboundUDP) close() {
	o.sources.close()
	o.readers.Wait()
}

// send carries a datagram of the namespace out.
func (o *outboundUDP) send(d datagram) {
	addr, v := o.policy.outbound(d.dst.Addr())
	f := flow{header.UDPProtocolNumber, d.src, d.dst}
	switch {
	case v != allow:
		o.frames.reject(verdictError(v), f, 0)
		return
	case d.ttl <= 1 && !o.plan.isOwn(d.dst.Addr()):
		o.frames.reject(errTimeExceeded, f, 0)
		return
	}
	dst := netip.AddrPortFrom(addr, d.dst.Port())
	if o.published.begin(d, dst) {
		return
	}
	s, err := o.source(d.src)
	if err != nil {
		o.log.Debug("outbound datagram lost", "from", d.src, "to", d.dst, "error", err)
		return
	}
	if err := s.send(d, dst); err != nil {
		o.frames.reject(err, f, 0)
	}
}

// source returns the socket of a sender.
func (o *outboundUDP) source(inside netip.AddrPort) (*udpSource, error) {
	if s, ok := o.sources.get(inside); ok {
		return s, nil
	}
	socket, err := openDatagrams(o.socket, sockio.Family(inside.Addr()), unix.IPPROTO_UDP)
	if err != nil {
		return nil, err
	}
	s := &udpSource{outboundUDP: o, inside: inside, socket: socket}
	socket.queued = s.failed
	// Counted before it is added, so that close waits for it.
	o.readers.Add(1)
	if !o.sources.add(inside, s) {
		o.readers.Done()
		socket.close()
		return nil, errClosed
	}
	go func() {
		defer o.readers.Done()
		socket.serve(s.receive)
	}()
	return s, nil
}

func (s *udpSource) send(d datagram, dst netip.AddrPort) error {
	if s.lastDst != dst {
		s.lastTo = sockio.AddrOf(dst)
		s.lastDst = dst
	}
	return s.socket.sendSegments(d.payload, d.segment, hopLimit(d.ttl, dst.Addr().Is6()), &s.lastTo)
}

// receive carries in a datagram from outside.
func (s *udpSource) receive(r received) {
	from := r.from.AddrPort()
	if src, ok := s.policy.replySource(from.Addr()); ok {
		s.frames.udp(netip.AddrPortFrom(src, from.Port()), s.inside, r.data)
	}
}

// failed carries in an ICMP error. The entry's address is the destination of
// the datagram.
func (s *udpSource) failed(r received) {
	to := r.from.AddrPort()
	reportNetworkError(s.frames, s.policy, r.oob, flow{header.UDPProtocolNumber, s.inside, to}, 0)
}

// reportNetworkError carries in an entry of a socket's error queue, as the ICMP
// error that it was. The flow's destination is as the host knows it.
func reportNetworkError(w *frameWriter, p *policy, oob []byte, f flow, seq uint32) {
	e, ok := parseNetworkError(oob)
	if !ok {
		return
	}
	dst, ok := p.replySource(f.dst.Addr())
	if !ok {
		return
	}
	offender, ok := p.replySource(e.offender)
	if !ok || !offender.IsValid() || offender.Is6() != dst.Is6() {
		offender = w.plan.gateway(dst.Is6())
	}
	f.dst = netip.AddrPortFrom(dst, f.dst.Port())
	w.icmpError(offender, e.kind, e.code, e.info, f, seq)
}
