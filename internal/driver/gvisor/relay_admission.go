package gvisor

import (
	"context"
	"sync"
	"time"
)

// Theory of operation.
//
// All connections share the processor with the transfers under way, in turns. Were
// each one that comes let in at once, a storm of them would make the round so long
// that a transfer, which moves a window of bytes in each round, stood still. So
// few connections of a port shake hands with the namespace at a time, and the
// others wait where they cost nothing and keep their order: in the kernel's queue
// of the listener. The namespace's own connections wait for their turn when the
// host has connected: a host that does not answer takes nobody's.
//
// What the namespace is slow to answer does not hold up the others for long.

const (
	// maxTurns is how many connections shake hands with the namespace at a time:
	// of each port, and of those that go out.
	maxTurns = 16
	// turnTime is when a connection that has no answer yet gives its turn to the
	// next. It goes on waiting.
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

// wait waits for a place, and is false if the context ends first.
func (a *admission) wait(ctx context.Context) bool {
	select {
	case a.places <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// begin begins the turn of a connection that has a place, and returns what ends
// it. It ends by itself after some time.
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
