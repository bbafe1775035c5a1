package gvisor

import (
	"context"
	"sync"
	"time"
)

// Theory of operation.
//
// All connections share the processor, in turns, with the transfers in progress.
// If every new connection were accepted at once, a storm of them would make the
// round so long that a transfer, which moves a window of bytes in each round,
// would stall. So only a few connections of a port shake hands with the namespace
// at a time. The others wait where they cost nothing and keep their order: in the
// listener's kernel queue.
//
// A connection that the namespace is slow to answer does not hold up the others for long.

const (
	// maxTurns is how many connections of a port shake hands with the namespace at a
	// time.
	maxTurns = 16
	// turnTime is after how long a connection without an answer passes its turn to
	// the next. It keeps waiting.
	turnTime = 100 * time.Millisecond
)

// admission lets connections in, in order of arrival.
type admission struct {
	places chan struct{}
	time   time.Duration
}

func newAdmission() *admission {
	return &admission{places: make(chan struct{}, maxTurns), time: turnTime}
}

// wait waits for a place. It returns false if the context ends first.
func (a *admission) wait(ctx context.Context) bool {
	select {
	case a.places <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// begin begins the turn of a connection that has a place, and returns a
// function that ends it. The turn ends by itself after some time.
func (a *admission) begin() (end func()) {
	leave := sync.OnceFunc(a.leave)
	late := time.AfterFunc(a.time, leave)
	return func() {
		late.Stop()
		leave()
	}
}

// leave gives a place back.
func (a *admission) leave() { <-a.places }
