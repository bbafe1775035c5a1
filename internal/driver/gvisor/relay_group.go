package gvisor

import (
	"sync"

	"rootlesskit/internal/fdlimit"
)

// relayGroup owns relays: it bounds their number and ends them together.
type relayGroup struct {
	max     int
	buffers *socketBuffers

	mu     sync.Mutex
	closed bool
	count  int
	relays map[*relay]struct{}
	ended  chan struct{} // closed when the group is, and all have left
}

// maxRelays is how many connections one group may have open.
const maxRelays = 16 << 10

func newRelayGroup(b *socketBuffers) *relayGroup {
	return &relayGroup{buffers: b, max: min(maxRelays, fdlimit.Get()/2), relays: map[*relay]struct{}{}, ended: make(chan struct{})}
}

// room reports whether the group accepts a connection now.
func (g *relayGroup) room() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed || g.count < g.max
}

// enter takes a place in the group, which leave gives back. It returns false if
// the group is full or closed.
func (g *relayGroup) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || g.count >= g.max {
		return false
	}
	g.count++
	g.buffers.add(1)
	return true
}

func (g *relayGroup) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.buffers.add(-1)
	if g.count--; g.closed && g.count == 0 {
		close(g.ended)
	}
}

// run runs a relay to its end; close ends it.
func (g *relayGroup) run(r *relay) error {
	r.buffers = g.buffers
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		r.abort(errClosed)
	} else {
		g.relays[r] = struct{}{}
		g.mu.Unlock()
	}
	err := r.run()
	g.mu.Lock()
	delete(g.relays, r)
	g.mu.Unlock()
	return err
}

// close cuts the connections. From now on none can enter, and ended is closed
// when all have left.
func (g *relayGroup) close() {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return
	}
	g.closed = true
	if g.count == 0 {
		close(g.ended)
	}
	cut := make([]*relay, 0, len(g.relays))
	for r := range g.relays {
		cut = append(cut, r)
	}
	g.mu.Unlock()
	for _, r := range cut {
		r.abort(errClosed)
	}
}
