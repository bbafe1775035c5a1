package gvisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// outboundTCP connects the namespace's TCP to the outside. A SYN from inside is
// answered only after the host has connected to the destination, so a
// destination that refuses or cannot be reached looks the same from inside.
type outboundTCP struct {
	ctx       context.Context
	log       *slog.Logger
	plan      *plan
	policy    *policy
	socket    socketFunc
	resolvers *resolvers
	frames    *frameWriter
	relays    *relayGroup
	stack     *stack.Stack
	forwarder *tcp.Forwarder
	pending   *attempts
	admission *admission

	received, sent atomic.Uint64
}

// handshakeTimeout is how long the namespace may take to complete a handshake,
// which it normally does at once. The stack itself would wait for minutes.
const handshakeTimeout = 3 * time.Second

func (o *outboundTCP) register(s *stack.Stack) {
	o.stack = s
	o.pending = newAttempts(o.relays.max)
	o.admission = newAdmission()
	// handle enforces the bound; the forwarder's own is never reached.
	o.forwarder = tcp.NewForwarder(s, 0, 4*maxPending, o.forward)
	s.SetTransportProtocolHandler(tcp.ProtocolNumber, o.handle)
}

// handle handles segments that belong to no endpoint. If it returns false, the
// stack answers with a reset.
func (o *outboundTCP) handle(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	segment := header.TCP(pkt.TransportHeader().Slice())
	if segment.Flags()&(header.TCPFlagSyn|header.TCPFlagAck) != header.TCPFlagSyn {
		return false
	}
	if !o.pending.admit(o.ctx, id, segment.SequenceNumber(), time.Now()) {
		return true
	}
	if !o.forwarder.HandlePacket(id, pkt) {
		o.pending.forget(id)
		return false
	}
	return true
}

// forward serves one connection from its SYN to its end, in a goroutine of
// its own.
func (o *outboundTCP) forward(req *tcp.ForwarderRequest) {
	id := req.ID()
	if !o.relays.enter() {
		req.Complete(false)
		o.pending.forget(id)
		return
	}
	defer o.relays.leave()
	at := o.pending.get(id)
	host, err := o.dial(at.ctx, localOf(id))
	if err != nil {
		o.log.Debug("outbound connection failed", "to", localOf(id), "error", err)
		o.fail(req, id, at.seq, err)
		o.pending.forget(id)
		return
	}
	r, err := o.accept(at.ctx, req, host)
	o.pending.forget(id)
	if err != nil {
		o.log.Debug("outbound connection given up", "to", localOf(id), "error", err)
		abortFile(host)
		return
	}
	o.relays.run(r)
}

// dial connects to the address, as translated for the host.
func (o *outboundTCP) dial(ctx context.Context, dst netip.AddrPort) (*os.File, error) {
	if o.plan.isNameServer(dst) {
		return o.dialNameServer(ctx)
	}
	addr, v := o.policy.outbound(dst.Addr())
	if v != allow {
		return nil, verdictError(v)
	}
	return dialTCP(ctx, o.socket, netip.AddrPortFrom(addr, dst.Port()))
}

func (o *outboundTCP) dialNameServer(ctx context.Context) (host *os.File, err error) {
	for _, server := range o.resolvers.servers() {
		if host, err = dialTCP(ctx, o.socket, server); err == nil {
			return host, nil
		}
	}
	return nil, err
}

// accept completes the handshake with the namespace, when it is the connection's
// turn.
func (o *outboundTCP) accept(ctx context.Context, req *tcp.ForwarderRequest, host *os.File) (*relay, error) {
	raw, err := host.SyscallConn()
	if err != nil {
		req.Complete(true)
		return nil, err
	}
	if !o.admission.wait(ctx) {
		req.Complete(false)
		return nil, ctx.Err()
	}
	defer o.admission.begin()()
	wq := new(waiter.Queue)
	id := req.ID() // Complete clears it in the request, and the timer may be late
	giveUp := time.AfterFunc(handshakeTimeout, func() { o.abortHandshake(id) })
	stop := context.AfterFunc(ctx, func() { o.abortHandshake(id) })
	ep, tcpErr := req.CreateEndpoint(wq)
	giveUp.Stop()
	stop()
	req.Complete(false)
	if tcpErr != nil {
		return nil, fmt.Errorf("handshake with the namespace: %w", stackError(tcpErr))
	}
	prepareEndpoint(ep)
	return &relay{host: host, raw: raw, ep: ep, wq: wq, bytesIn: &o.received, bytesOut: &o.sent}, nil
}

// abortHandshake stops waiting for the namespace's part of a handshake.
func (o *outboundTCP) abortHandshake(id stack.TransportEndpointID) {
	ep := o.stack.FindTransportEndpoint(networkProtocol(netAddr(id.LocalAddress)), tcp.ProtocolNumber, id, nicID)
	if ep != nil {
		ep.Abort()
	}
}

// fail tells the namespace why there is no connection, in the same way as the
// host learned it.
func (o *outboundTCP) fail(req *tcp.ForwarderRequest, id stack.TransportEndpointID, seq uint32, err error) {
	if errors.Is(err, unix.ECONNREFUSED) || err == verdictError(refuse) {
		req.Complete(true)
		return
	}
	req.Complete(false)
	o.frames.reject(err, flow{proto: header.TCPProtocolNumber, src: remoteOf(id), dst: localOf(id)}, seq)
}

// abortFile closes a TCP socket with a reset.
func abortFile(f *os.File) {
	if raw, err := f.SyscallConn(); err == nil {
		resetOnClose(raw)
	}
	f.Close()
}
