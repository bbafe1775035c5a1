package gvisor

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"rootlesskit/internal/sockio"
)

const (
	// maxPings bounds the ping sockets of the host.
	maxPings = 256
	// pingIdle is how long a ping may be silent (RFC 5508, REQ-1: not less
	// than one minute).
	pingIdle = time.Minute
)

// pinger carries pings out through the kernel's ping sockets (icmp(7)), which
// need no privilege if net.ipv4.ping_group_range includes the user's group. If
// it does not, the namespace learns that ping is prohibited: pinger never
// forges an answer. The stack answers for its own addresses.
//
// A ping socket chooses the identifier of its echo requests, so each
// identifier of the namespace has a socket of its own.
type pinger struct {
	log    *slog.Logger
	plan   *plan
	policy *policy
	frames *frameWriter
	socket socketFunc

	sources *flowTable[netip.AddrPort, *pingSource] // by sender and identifier
	readers sync.WaitGroup
	denied  sync.Once
}

// pingSource is a sender and identifier of the namespace.
type pingSource struct {
	*pinger
	inside netip.AddrPort
	socket *dgramSocket
}

func newPinger(log *slog.Logger, p *plan, pol *policy, w *frameWriter, socket socketFunc) *pinger {
	g := &pinger{log: log, plan: p, policy: pol, frames: w, socket: socket}
	g.sources = newFlowTable(maxPings, pingIdle, func(_ netip.AddrPort, s *pingSource) { s.socket.close() })
	return g
}

func (g *pinger) close() {
	g.sources.close()
	g.readers.Wait()
}

// echoLen is the size of the header of an echo message, of either version.
const echoLen = 8

// isEchoRequest reports whether pinger handles a packet.
func isEchoRequest(p packet) bool {
	if len(p.payload) < echoLen || p.payload[1] != 0 {
		return false
	}
	if p.src.Is4() {
		return p.proto == uint8(header.ICMPv4ProtocolNumber) && p.payload[0] == byte(header.ICMPv4Echo)
	}
	return p.proto == uint8(header.ICMPv6ProtocolNumber) && p.payload[0] == byte(header.ICMPv6EchoRequest)
}

// send carries an echo request out.
func (g *pinger) send(p packet) {
	f := flow{
		proto: echoProtocol(p.dst.Is6()),
		src:   netip.AddrPortFrom(p.src, binary.BigEndian.Uint16(p.payload[4:])),
		dst:   netip.AddrPortFrom(p.dst, 0),
	}
	if err := g.forward(f, p); err != nil {
		g.frames.reject(err, f, uint32(binary.BigEndian.Uint16(p.payload[6:])))
	}
}

func (g *pinger) forward(f flow, p packet) error {
	addr, v := g.policy.outbound(p.dst)
	switch {
	case v != allow:
		return verdictError(v)
	case p.ttl <= 1: // the stack answers for its own addresses
		return errTimeExceeded
	}
	s, err := g.source(f.src)
	if err != nil {
		return err
	}
	to := sockio.AddrOf(netip.AddrPortFrom(addr, 0))
	return s.socket.send(p.payload, hopLimit(p.ttl, p.dst.Is6()), &to)
}

func (g *pinger) source(inside netip.AddrPort) (*pingSource, error) {
	if s, ok := g.sources.get(inside); ok {
		return s, nil
	}
	socket, err := g.open(inside.Addr().Is6())
	if err != nil {
		g.explain(err)
		return nil, err
	}
	s := &pingSource{pinger: g, inside: inside, socket: socket}
	socket.queued = s.failed
	g.readers.Add(1) // before it is added, so that close waits for it
	if !g.sources.add(inside, s) {
		g.readers.Done()
		socket.close()
		return nil, errClosed
	}
	go func() {
		defer g.readers.Done()
		socket.serve(s.receive)
	}()
	return s, nil
}

func (g *pinger) explain(err error) {
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		g.denied.Do(func() {
			g.log.Info("ping from the namespace is not possible: the user's group is not in net.ipv4.ping_group_range")
		})
	}
}

func (g *pinger) open(is6 bool) (*dgramSocket, error) {
	if is6 {
		return openDatagrams(g.socket, unix.AF_INET6, unix.IPPROTO_ICMPV6)
	}
	return openDatagrams(g.socket, unix.AF_INET, unix.IPPROTO_ICMP)
}

// receive carries an echo reply in, under the identifier of its request.
func (s *pingSource) receive(r received) {
	if len(r.data) < echoLen {
		return
	}
	src, ok := s.policy.replySource(r.from.AddrPort().Addr())
	if !ok {
		return
	}
	message := slices.Clone(r.data)
	message[2], message[3] = 0, 0
	binary.BigEndian.PutUint16(message[4:], s.inside.Port())
	s.frames.icmp(src, s.inside.Addr(), message)
}

// failed carries an ICMP error in.
func (s *pingSource) failed(r received) {
	seq := uint32(0)
	if len(r.data) >= echoLen {
		seq = uint32(binary.BigEndian.Uint16(r.data[6:]))
	}
	to := r.from.AddrPort()
	reportNetworkError(s.frames, s.policy, r.oob, flow{echoProtocol(to.Addr().Is6()), s.inside, to}, seq)
}
