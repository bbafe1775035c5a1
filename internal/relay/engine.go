// Package relay is the data plane of the builtin port driver: it listens in the
// parent's network namespace and connects with sockets that were made in the
// child's.
package relay

import (
	"fmt"
	"log/slog"
	"runtime"
	"sync/atomic"
	"time"
)

// Options configure an Engine.
type Options struct {
	// Loops is the number of event loops, each a thread of its own; 0 is one
	// per CPU.
	Loops int
	// Spin is the longest time that a loop polls for the next event before it
	// blocks, while traffic is hot; 0 is DefaultSpin, a negative one is never.
	Spin time.Duration
	// Log is where faults are told; nil drops them.
	Log *slog.Logger
}

// DefaultSpin is a little more than what a small request takes to be answered
// on the same machine.
const DefaultSpin = 50 * time.Microsecond

// Engine owns the event loops.
type Engine struct {
	loops []*loop
	log   *slog.Logger
	next  atomic.Uint32 // the loop that pick returns next
}

// New starts the loops. They live until Close.
func New(o Options) (*Engine, error) {
	if o.Loops <= 0 {
		o.Loops = runtime.NumCPU()
	}
	if o.Spin == 0 {
		o.Spin = DefaultSpin
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	e := &Engine{log: o.Log}
	for range o.Loops {
		l, err := newLoop(max(o.Spin, 0))
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
	for _, l := range e.loops {
		l.post(func() { l.stop = true })
	}
	for _, l := range e.loops {
		<-l.done
	}
	return nil
}

// pick returns the loop for something that lives on one loop, in turns.
func (e *Engine) pick() *loop {
	return e.loops[int(e.next.Add(1)-1)%len(e.loops)]
}
