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
	"rootlesskit/internal/eventloop"
	"rootlesskit/internal/sockio"
)

// The UDP data plane, theory of operation.
//
// A port lives on one loop. Its listeners are bound in the host. Each client
// (on a wildcard listener: each pair of a client and the address that it sends
// to) is a flow with its own socket in the namespace, connected to the server,
// so that the server can tell clients apart and the kernel sorts its replies.
//
//	client ─ listener ─ recvmmsg ─ sort by flow ─ sendmmsg ─ flow ─ server
//	client ─ listener ─ sendmmsg ─ replies of all flows ─ recvmmsg ─ flow ─ server
//
// Datagrams move in the slots of a batch (udpbatch.go), which all ports of a
// loop share, and are not copied. Datagrams of the same size and flow leave in
// one UDP_SEGMENT message, which passes the network stack as a whole; the
// kernel splits it for a receiver that does not ask for UDP_GRO. Boundaries,
// order within a flow and empty datagrams are preserved.
//
// Datagrams that do not fit are dropped, as in a network; the loop never waits for room.
//
// Errors: a server that refuses (ICMP port unreachable) shows as ECONNREFUSED on the
// flow's socket. It is counted, and the flow's route is looked up again at the client's
// next datagram (udpdoubt.go), so a server that comes back, even at another address, is
// found. The client does not learn about it: only the kernel could send an ICMP error,
// which it does if no socket is bound, or a raw socket, which needs CAP_NET_RAW in the
// host's namespace. So to the client a refused datagram is a lost one. An unconnected
// socket reports no errors about the way back to a client; such flows end with their
// timeout.
//
//	udp         what is forwarded, and what a port is
//	udplisten   datagrams of clients come in, and are sorted by flow
//	udpbatch    the slots that datagrams are received into
//	udpsend     messages that are sent from there, segments put together
//	udpflow     a flow and its states
//	udptable    the flows of a port; when they end (udpbudget: of all ports)
//	udpwait     flows without a socket, or without a route
//	udpdoubt    flows whose server may be elsewhere

// UDPConfig configures a forwarded port.
type UDPConfig struct {
	// Sockets are UDP sockets bound in the host. ForwardUDP takes them over, even
	// if it fails.
	Sockets []int
	// Pool returns the pool of datagram sockets of a family, unix.AF_INET or
	// unix.AF_INET6.
	Pool func(family int) *Pool
	// Router returns the routes to the servers. Preludes are ignored.
	Router Router
	// MaxFlows bounds the flows of the port; beyond it, the flow that has been
	// silent longest ends. Each flow takes a descriptor. 0 means the budget that
	// all ports of the engine share, see flowBudget.
	MaxFlows int
	// MaxSilence ends a flow that has been silent for this long in both
	// directions. 0 means an hour: a server may answer late, and knows the client
	// by its source port.
	MaxSilence time.Duration
	// Log receives faults; nil drops them.
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
	expiry    *eventloop.Timer // nil: no flows
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

// ForwardUDP starts to forward the datagrams that arrive at the sockets.
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
	if p.loop.mail.Call(func() { err = p.start() }); err != nil {
		sockio.CloseAll(cfg.Sockets)
		return nil, fmt.Errorf("forwarding UDP: %w", err)
	}
	return p, nil
}

func (p *UDPPort) start() (err error) {
	p.batch = p.loop.udp.shared()
	for i, l := range p.listeners {
		p.batch.enableGRO(l.fd)
		if l.token, err = p.loop.set.Add(l.fd, unix.EPOLLIN, l); err != nil {
			for _, started := range p.listeners[:i] {
				p.loop.set.Remove(started.fd, started.token)
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
		if !p.loop.mail.Call(p.stop) {
			<-p.loop.done
			p.stop()
		}
	})
	return nil
}

func (p *UDPPort) stop() {
	p.batch.flush()
	for _, l := range p.listeners {
		p.loop.set.Forget(l.token)
		unix.Close(l.fd)
	}
	for p.flows.byUse.front != nil {
		p.closeFlow(p.flows.byUse.front)
	}
	p.loop.stopTimer(p.expiry)
	p.loop.stopTimer(p.doubts.timer)
	p.budget.leave(p)
}

// Details implements driver.Detailer. A flow counts only once as refused until
// its server answers again; AcceptErrors counts the flows that had to wait for
// a socket of the namespace or made another flow end.
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

// count adds to the counters of datagrams.
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

// shortage counts that a flow had to wait or to end, and logs it from time to time.
func (p *UDPPort) shortage(what string, args ...any) {
	p.stats.shortages.Add(1)
	if p.told.due() {
		p.cfg.Log.Warn(what, args...)
	}
}
