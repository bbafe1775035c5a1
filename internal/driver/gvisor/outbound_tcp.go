package gvisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// outboundTCP connects the namespace's TCP to the world. A SYN from inside is
// answered only after the host has connected to the destination, so that what
// refuses, or cannot be reached, looks so from inside too.
type outboundTCP struct {
	ctx       context.Context
	log       *slog.Logger
	plan      *plan
	policy    *policy
	socket    socketFunc
	resolvers *resolvers
	frames    *frameWriter
	relays    *relayGroup
	forwarder *tcp.Forwarder

	mu sync.Mutex
	// pending holds the sequence numbers of the SYNs under way.
	pending map[stack.TransportEndpointID]uint32

	received, sent atomic.Uint64
}

// maxPending bounds the connection attempts from inside under way. A SYN
// beyond that is lost, and sent again by its sender.
const maxPending = 1024

func (o *outboundTCP) register(s *stack.Stack) {
	o.pending = map[stack.TransportEndpointID]uint32{}
	// The bound is kept by handle; the forwarder's own never strikes.
	o.forwarder = tcp.NewForwarder(s, 0, 2*maxPending, o.forward)
	s.SetTransportProtocolHandler(tcp.ProtocolNumber, o.handle)
}

// handle takes the segments that belong to no endpoint. False is answered
// with a reset by the stack.
func (o *outboundTCP) handle(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	segment := header.TCP(pkt.TransportHeader().Slice())
	if segment.Flags()&(header.TCPFlagSyn|header.TCPFlagAck) != header.TCPFlagSyn {
		return false
	}
	if !o.admit(id, segment.SequenceNumber()) {
		return true
	}
	if !o.forwarder.HandlePacket(id, pkt) {
		o.forget(id)
		return false
	}
	return true
}

func (o *outboundTCP) admit(id stack.TransportEndpointID, seq uint32) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.pending[id]; ok || len(o.pending) >= maxPending {
		return false
	}
	o.pending[id] = seq
	return true
}

func (o *outboundTCP) forget(id stack.TransportEndpointID) (seq uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	seq = o.pending[id]
	delete(o.pending, id)
	return seq
}

// forward serves one connection from its SYN to its end, in a goroutine of
// its own.
func (o *outboundTCP) forward(req *tcp.ForwarderRequest) {
	id := req.ID()
	if !o.relays.enter() {
		o.forget(id)
		req.Complete(false)
		return
	}
	defer o.relays.leave()
	host, err := o.dial(localOf(id))
	if err != nil {
		seq := o.forget(id)
		o.log.Debug("outbound connection failed", "to", localOf(id), "error", err)
		o.fail(req, id, seq, err)
		return
	}
	r, err := o.accept(req, host)
	o.forget(id)
	if err != nil {
		o.log.Debug("outbound connection given up", "to", localOf(id), "error", err)
		abortFile(host)
		return
	}
	o.relays.run(r)
}

// verdictError is a refusal by the policy.
type verdictError verdict

func (v verdictError) Error() string { return "closed by policy" }

// dial connects to what the address means for the host.
func (o *outboundTCP) dial(dst netip.AddrPort) (*os.File, error) {
	if o.plan.isNameServer(dst) {
		return o.dialNameServer()
	}
	addr, v := o.policy.outbound(dst.Addr())
	if v != allow {
		return nil, verdictError(v)
	}
	return dialTCP(o.ctx, o.socket, netip.AddrPortFrom(addr, dst.Port()))
}

func (o *outboundTCP) dialNameServer() (host *os.File, err error) {
	for _, server := range o.resolvers.servers() {
		if host, err = dialTCP(o.ctx, o.socket, server); err == nil {
			return host, nil
		}
	}
	return nil, err
}

// accept completes the handshake with the namespace.
func (o *outboundTCP) accept(req *tcp.ForwarderRequest, host *os.File) (*relay, error) {
	raw, err := host.SyscallConn()
	if err != nil {
		req.Complete(true)
		return nil, err
	}
	wq := new(waiter.Queue)
	ep, tcpErr := req.CreateEndpoint(wq)
	req.Complete(false)
	if tcpErr != nil {
		return nil, fmt.Errorf("handshake with the namespace: %w", stackError(tcpErr))
	}
	return &relay{host: host, raw: raw, ep: ep, wq: wq, bytesIn: &o.received, bytesOut: &o.sent}, nil
}

// fail tells the namespace why there is no connection, in the way that the
// host was told.
func (o *outboundTCP) fail(req *tcp.ForwarderRequest, id stack.TransportEndpointID, seq uint32, err error) {
	reason, known := unreachableFor(err)
	switch {
	case known:
		req.Complete(false)
		o.frames.unreachable(reason, flow{proto: header.TCPProtocolNumber, src: remoteOf(id), dst: localOf(id)}, seq)
	case errors.Is(err, unix.ECONNREFUSED), err == verdictError(refuse):
		req.Complete(true)
	default:
		req.Complete(false) // silence: a timeout, or a shortage that may pass
	}
}

// unreachableFor tells which ICMP error stands for a failure to send or
// connect.
func unreachableFor(err error) (unreachable, bool) {
	switch {
	case err == verdictError(unroutable), errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EADDRNOTAVAIL):
		return netUnreachable, true
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EHOSTDOWN):
		return hostUnreachable, true
	case err == verdictError(prohibit), errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return prohibited, true
	}
	return 0, false
}

// abortFile closes a TCP socket with a reset.
func abortFile(f *os.File) {
	if raw, err := f.SyscallConn(); err == nil {
		resetOnClose(raw)
	}
	f.Close()
}
