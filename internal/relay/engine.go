// Package relay is the data plane of the builtin port driver: it listens in the
// parent's network namespace and connects with sockets that were made in the
// child's.
//
// An engine has event loops (loop, timer, processor, sys), which know no protocol.
// TCP and UDP are two groups of files, each by its prefix; tcp.go and udp.go tell
// how they work. Both ask a Router for the way to a server (route) and a Pool for
// a socket of the namespace (pool).
package relay

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"rootlesskit/internal/fdlimit"
	"rootlesskit/internal/procs"
)

// Options configure an Engine.
type Options struct {
	// Loops is the number of event loops; 0 is one per CPU that the process may
	// use, at most 8, and fewer where descriptors are few.
	Loops int
	// Log is where faults are told; nil drops them.
	Log *slog.Logger
}

const maxLoops = 8

// loopShare bounds the loops to one for each so many descriptors that the process
// may have: a loop has three for itself.
const loopShare = 512

// Engine owns the event loops.
type Engine struct {
	loops []*loop
	log   *slog.Logger
	next  atomic.Uint32 // the loop that pick returns next
	flows flowBudget
	close sync.Once
}

// New starts the loops. They live until Close.
func New(o Options) (*Engine, error) {
	if o.Loops <= 0 {
		o.Loops = max(min(procs.Own(), maxLoops, fdlimit.Get()/loopShare), 1)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	e := &Engine{log: o.Log}
	for range o.Loops {
		l, err := newLoop()
		if err != nil {
			_ = e.Close()
			return nil, fmt.Errorf("starting an event loop: %w", err)
		}
		e.loops = append(e.loops, l)
		go l.run()
	}
	return e, nil
}

// Close ends the loops and waits for them. Ports that are still open are the
// caller's to close before.
func (e *Engine) Close() error {
	e.close.Do(func() {
		for _, l := range e.loops {
			l.post(func() { l.stop = true })
		}
		for _, l := range e.loops {
			<-l.done
		}
	})
	return nil
}

// pick returns the loop for something that lives on one loop, in turns.
func (e *Engine) pick() *loop {
	return e.loops[int(e.next.Add(1)-1)%len(e.loops)]
}
