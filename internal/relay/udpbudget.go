package relay

import (
	"sync"
	"sync/atomic"

	"rootlesskit/internal/fdlimit"
)

// flowBudget bounds the flows of all UDP ports of an engine: by descriptors, of
// which connections need some too, and by memory. It is not dealt out, since one
// port may be busy and a thousand idle; where it is used up, the port with the
// most flows loses one.
type flowBudget struct {
	flows atomic.Int64
	mu    sync.Mutex
	ports map[*UDPPort]struct{}
}

const (
	// flowShare is the part of the descriptors that flows may have.
	flowShare = 2
	// mostFlows take some 60 MiB, of which the most is the kernel's.
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

// full returns the port that has to end a flow before another one has a new one;
// nil where there is room. most is the number of flows that there may be.
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
