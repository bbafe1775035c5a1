package relay

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/sockio"
)

// The UDP data plane, theory of operation.
//
// A port lives on one loop. Its listeners are bound in the host; each client
// (on a wildcard listener: each client and the address that it asked) is a flow
// with a socket of its own in the namespace, connected to the server, so that
// the server sees the clients apart and the kernel sorts its replies.
//
//	client ─ listener ─ recvmmsg ─ sort by flow ─ sendmmsg ─ flow ─ server
//	client ─ listener ─ sendmmsg ─ replies of all flows ─ recvmmsg ─ flow ─ server
//
// Datagrams move in the slots of a batch (udpbatch.go) that all ports of a loop
// share; they are never copied here. Those of one size that go the same way
// leave in one UDP_SEGMENT message, through the network stack at once; the
// kernel cuts them apart again for a receiver that does not ask for UDP_GRO.
// Boundaries, order within a flow and empty datagrams are kept.
//
// What does not fit is dropped, as a network would, and never waited for.
//
// Errors: a server that refuses (ICMP port unreachable) shows as ECONNREFUSED
// on the flow's socket. It is counted, and the way of the flow is looked up again
// at the client's next datagram (udpdoubt.go), so a server that comes back, also on
// another address, is found. The client is not told: an ICMP error can be sent by the kernel, which
// does so only where no socket is bound, or by a raw socket, which takes
// CAP_NET_RAW in the host's namespace. So to the client a refused datagram is a
// lost one. Errors about the way back to a client are not reported on an
// unconnected socket, and end with the flow's timeout.
//
//	udp         what is forwarded, and what a port is
//	udplisten   datagrams of clients come in, and are sorted by flow
//	udpbatch    the slots that datagrams are received into
//	udpsend     messages that are sent from there, segments put together
//	udpflow     a flow and its states
//	udptable    the flows of a port; when they end (udpbudget: of all ports)
//	udpwait     flows without a socket, or without a route
//	udpdoubt    flows whose server may be elsewhere

// UDPConfig says what to forward.
type UDPConfig struct {
	// Sockets are UDP sockets bound in the host; ForwardUDP owns them, also
	// when it fails.
	Sockets []int
	// Pool returns the sockets of the namespace of a family (unix.AF_INET,
	// unix.AF_INET6).
	Pool func(family int) *Pool
	// Router knows the ways to the servers. A Prelude is not used.
	Router Router
	// MaxFlows bounds the flows of the port; the one that was silent longest
	// goes. Each takes a descriptor. 0 is what all ports of the engine share,
	// see flowBudget.
	MaxFlows int
	// MaxSilence ends a flow that was silent for as long, in both directions. 0
	// is an hour: a server may take its time, and the client's source port is
	// its name there.
	MaxSilence time.Duration
	// Log is where faults are told; nil drops them.
	Log *slog.Logger
}

func (c *UDPConfig) setDefaults() {
	if c.MaxSilence <= 0 {
		c.MaxSilence = time.Hour
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// UDPPort is a published UDP port.
type UDPPort struct {
	loop      *loop
	cfg       UDPConfig
	batch     *udpBatch
	listeners []*udpListener
	flows     flowTable
	expiry    *timer // nil: no flows
	waiting   waitingFlows
	doubts    doubts
	budget    *flowBudget // the engine's
	told      seldom      // a shortage
	closeOnce sync.Once

	stats udpStats
}

// udpStats is read by every goroutine.
type udpStats struct {
	accepted, refused, active, shortages, dropped, bytesIn, bytesOut atomic.Uint64
	lastError                                                        atomic.Pointer[string]
}

// ForwardUDP starts to forward what arrives at the sockets.
func (e *Engine) ForwardUDP(cfg UDPConfig) (*UDPPort, error) {
	cfg.setDefaults()
	p := &UDPPort{loop: e.pick(), cfg: cfg, budget: &e.flows}
	p.flows.byKey = make(map[flowKey]*udpFlow)
	for i, fd := range cfg.Sockets {
		l, err := newUDPListener(p, fd)
		if err != nil {
			sockio.CloseAll(cfg.Sockets)
			return nil, fmt.Errorf("UDP listener %d: %w", i, err)
		}
		p.listeners = append(p.listeners, l)
	}
	err := errors.New("the event loop has ended")
	if p.loop.call(func() { err = p.start() }); err != nil {
		sockio.CloseAll(cfg.Sockets)
		return nil, fmt.Errorf("forwarding UDP: %w", err)
	}
	return p, nil
}

func (p *UDPPort) start() (err error) {
	p.batch = p.loop.udp.shared()
	for i, l := range p.listeners {
		p.batch.enableGRO(l.fd)
		if l.token, err = p.loop.register(l.fd, unix.EPOLLIN, l); err != nil {
			for _, started := range p.listeners[:i] {
				p.loop.unregister(started.fd, started.token)
			}
			return err
		}
	}
	p.budget.enter(p)
	return nil
}

// Close ends the port and its flows. When it returns, the port can be bound
// again.
func (p *UDPPort) Close() error {
	p.closeOnce.Do(func() {
		if !p.loop.call(p.stop) {
			<-p.loop.done
			p.stop()
		}
	})
	return nil
}

func (p *UDPPort) stop() {
	p.batch.flush()
	for _, l := range p.listeners {
		p.loop.forget(l.token)
		unix.Close(l.fd)
	}
	for p.flows.byUse.front != nil {
		p.closeFlow(p.flows.byUse.front)
	}
	p.loop.stopTimer(p.expiry)
	p.loop.stopTimer(p.doubts.timer)
	p.budget.leave(p)
}

// Details tells what the port has done. A flow counts once as refused until its
// server answers again; AcceptErrors counts the flows that had to wait for a
// socket of the namespace or made another one end.
func (p *UDPPort) Details() api.PortDetails {
	d := api.PortDetails{
		Accepted:     p.stats.accepted.Load(),
		Refused:      p.stats.refused.Load(),
		Active:       p.stats.active.Load(),
		BytesIn:      p.stats.bytesIn.Load(),
		BytesOut:     p.stats.bytesOut.Load(),
		AcceptErrors: p.stats.shortages.Load(),
		Dropped:      p.stats.dropped.Load(),
	}
	if e := p.stats.lastError.Load(); e != nil {
		d.LastError = *e
	}
	return d
}

// fault records the reason of the latest failure.
func (p *UDPPort) fault(what string, err error) {
	text := fmt.Sprintf("%s: %v", what, err)
	p.stats.lastError.Store(&text)
	p.cfg.Log.Debug("UDP port", "error", text)
}

// count adds up what became of datagrams.
func (p *UDPPort) count(t udpTally, way udpWay) {
	bytes := &p.stats.bytesIn
	if way == udpToClient {
		bytes = &p.stats.bytesOut
	}
	bytes.Add(uint64(t.bytes))
	if t.dropped > 0 {
		p.stats.dropped.Add(uint64(t.dropped))
	}
}

// shortage notes that a flow had to wait or to end, and tells it seldom.
func (p *UDPPort) shortage(what string, args ...any) {
	p.stats.shortages.Add(1)
	if p.told.due() {
		p.cfg.Log.Warn(what, args...)
	}
}
