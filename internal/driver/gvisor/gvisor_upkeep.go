package gvisor

import (
	"context"
	"runtime"
	"runtime/debug"
	"time"
)

const (
	// upkeepInterval is how often idle flows and unused memory are looked for.
	upkeepInterval = 3 * time.Second
	// quietFrames is how many frames an interval has at most to count as quiet,
	// beside one a connection, which answers probes.
	quietFrames = 100
	// busyFrames is how many frames leave memory behind that is worth giving
	// back.
	busyFrames = 2000
)

// upkeep ends idle flows, and gives memory back to the system when traffic has
// ended, until the context ends.
func (n *Network) upkeep(ctx context.Context) {
	tick := time.NewTicker(upkeepInterval)
	defer tick.Stop()
	var m memoryKeeper
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			n.outbound.pending.expire(now)
			n.published.flows.expire(now)
			n.datagrams.outbound.sources.expire(now)
			n.datagrams.pinger.sources.expire(now)
			if m.due(n.link.frames.Load(), n.buffers.count()) {
				// Go alone would keep it for minutes: an idle process collects
				// no garbage. Pools give theirs up in the second collection.
				runtime.GC()
				debug.FreeOSMemory()
			}
		}
	}
}

// memoryKeeper finds the moments when much traffic has just ended.
type memoryKeeper struct {
	last, freed uint64 // the count of frames at the last look, and when last due
}

func (m *memoryKeeper) due(frames uint64, connections int) bool {
	quiet := frames-m.last <= uint64(quietFrames+connections)
	m.last = frames
	if !quiet || frames-m.freed < busyFrames {
		return false
	}
	m.freed = frames
	return true
}
