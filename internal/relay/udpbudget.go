package relay

import (
	"sync"
	"sync/atomic"

	"rootlesskit/internal/fdlimit"
)

// flowBudget bounds the flows of all UDP ports of an engine, by descriptors, of
// which connections need some too, and by memory. Ports have no fixed shares,
// since one port may be busy and a thousand idle. When the budget is used up,
// the port with the most flows loses one.
type flowBudget struct {
	flows atomic.Int64
	mu    sync.Mutex
	ports map[*UDPPort]struct{}
}

const (
	// flowShare is the fraction of the descriptors that flows may use.
	flowShare = 2
	// mostFlows take about 60 MiB, most of it in the kernel.
	mostFlows = 32 << 10
)

func (b *flowBudget) enter(p *UDPPort) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ports == nil {
		b.ports = map[*UDPPort]struct{}{}
	}
	b.ports[p] = struct{}{}
}

func (b *flowBudget) leave(p *UDPPort) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.ports, p)
}

// full returns the port that has to end a flow before another port gets a new
// one; nil if there is room. most is the maximum number of flows.
func (b *flowBudget) full(asking *UDPPort) (fullest *UDPPort, most int) {
	most = min(max(fdlimit.Get()/flowShare, 1), mostFlows)
	if b.flows.Load() < int64(most) {
		return nil, most
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	fullest = asking
	for p := range b.ports {
		if p.stats.active.Load() > fullest.stats.active.Load() {
			fullest = p
		}
	}
	return fullest, most
}
