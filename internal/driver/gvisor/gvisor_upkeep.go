package gvisor

import (
	"context"
	"runtime"
	"runtime/debug"
	"time"
)

const (
	// upkeepInterval is how often the driver looks for idle flows and unused memory.
	upkeepInterval = 3 * time.Second
	// quietFrames is the most frames of a quiet interval, in addition to one per
	// connection, for keep-alive probes.
	quietFrames = 100
	// busyFrames is the number of frames after which there is memory worth
	// returning.
	busyFrames = 2000
)

// upkeep ends idle flows, and returns memory to the system when traffic has
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
			n.published.flows.expire(now)
			n.datagrams.outbound.sources.expire(now)
			n.datagrams.pinger.sources.expire(now)
			if m.due(n.link.frames.Load(), n.loop.registered()) {
				n.releaseMemory(ctx)
			}
		}
	}
}

// releaseMemory returns memory to the system. Go alone would keep it for minutes, because
// an idle process collects no garbage.
func (n *Network) releaseMemory(ctx context.Context) {
	trimmed := make(chan struct{})
	n.loop.mail.Post(func() {
		n.loop.translator.Trim()
		close(trimmed)
	})
	select {
	case <-trimmed:
	case <-ctx.Done(): // the loop has ended
		return
	}
	runtime.GC() // pools release their memory in the second collection
	debug.FreeOSMemory()
}

// memoryKeeper detects when much traffic has just ended.
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
