// Package relay is the data plane of the builtin port driver: it listens in the
// parent's network namespace and connects with sockets that were made in the
// child's.
//
// An engine has event loops (loop, processor), which know no protocol.
// TCP and UDP are two groups of files, named by their prefixes; tcp.go and udp.go
// explain how they work. Both ask a Router for the route to a server (route.go),
// and a Pool for a socket of the namespace (pool.go).
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
	// Loops is the number of event loops; 0 means one per CPU that the process may
	// use, at most 8, and fewer if descriptors are few.
	Loops int
	// Log is where faults are told; nil drops them.
	Log *slog.Logger
}

const maxLoops = 8

// loopShare is the number of descriptors that the process must be allowed per
// loop: a loop takes three for itself.
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

// Close ends the loops and waits for them. The caller must close all ports
// first.
func (e *Engine) Close() error {
	e.close.Do(func() {
		for _, l := range e.loops {
			l.mail.Post(func() { l.stop = true })
		}
		for _, l := range e.loops {
			<-l.done
		}
	})
	return nil
}

// pick returns a loop for something that lives on a single loop. It takes turns.
func (e *Engine) pick() *loop {
	return e.loops[int(e.next.Add(1)-1)%len(e.loops)]
}
