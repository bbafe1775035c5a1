package gvisor

import (
	"container/list"
	"context"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// maxPending bounds the connection attempts from inside that wait for an answer
// from outside; a fraction of the places for connections bounds them too.
const (
	maxPending      = 1024
	pendingFraction = 4
)

// attempts has the connection attempts from inside that are in progress.
// Attempts that wait in vain, for addresses that never answer, do not hold up
// others: if there are too many, the one whose last SYN is the oldest makes
// room. If it is still wanted, its SYN will come again.
type attempts struct {
	max int

	mu sync.Mutex
	m  map[stack.TransportEndpointID]*attempt // including canceled ones that have not ended yet
	// waiting has those that are not canceled, starting with the one whose SYN came last.
	waiting list.List
}

// attempt is a connection attempt. ctx ends when it is given up.
type attempt struct {
	ctx    context.Context
	cancel context.CancelFunc
	seq    uint32 // of the SYN

	first, last time.Time // when the SYN came
	place       *list.Element
}

func newAttempts(places int) *attempts {
	return &attempts{max: max(1, min(maxPending, places/pendingFraction)), m: map[stack.TransportEndpointID]*attempt{}}
}

// admit handles a SYN. It returns false if the SYN begins no attempt, because it
// belongs to an attempt in progress, or has to come again.
func (a *attempts) admit(ctx context.Context, id stack.TransportEndpointID, seq uint32, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if at := a.m[id]; at != nil {
		if at.seq != seq { // the namespace has given up the old one
			a.give(at)
		}
		if at.place != nil {
			at.last = now
			a.waiting.MoveToFront(at.place)
		}
		return false
	}
	// Canceled attempts end on their own, soon.
	if len(a.m) >= 2*a.max {
		return false
	}
	if a.waiting.Len() >= a.max {
		a.give(a.waiting.Back().Value.(*attempt))
	}
	at := &attempt{seq: seq, first: now, last: now}
	at.ctx, at.cancel = context.WithCancel(ctx)
	at.place = a.waiting.PushFront(at)
	a.m[id] = at
	return true
}

// give cancels an attempt, with the lock held.
func (a *attempts) give(at *attempt) {
	if at.place != nil {
		a.waiting.Remove(at.place)
		at.place = nil
		at.cancel()
	}
}

// get returns an attempt that was admitted and not yet forgotten.
func (a *attempts) get(id stack.TransportEndpointID) *attempt {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.m[id]
}

// forget is called at the end of an attempt.
func (a *attempts) forget(id stack.TransportEndpointID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if at := a.m[id]; at != nil {
		a.give(at)
		delete(a.m, id)
	}
}

// expire cancels the attempts that the namespace has given up.
func (a *attempts) expire(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for e := a.waiting.Back(); e != nil; {
		at := e.Value.(*attempt)
		e = e.Prev()
		if at.abandoned(now) {
			a.give(at)
		}
	}
}

// abandoned reports whether the SYN should have come again by now: each pause is
// at most twice the one before, and the first is a second.
func (at *attempt) abandoned(now time.Time) bool {
	return now.Sub(at.last) > 2*at.last.Sub(at.first)+4*time.Second
}
