package eventloop

import (
	"container/heap"
	"time"
)

// Timer is a function to call at a time of its loop's clock.
type Timer struct {
	when  time.Duration
	f     func()
	index int // in the heap, plus one; 0: not in it
}

// NewTimer makes a timer that is not set.
func NewTimer(f func()) Timer { return Timer{f: f} }

// IsSet reports whether the timer is set.
func (t *Timer) IsSet() bool { return t.index > 0 }

// When is when it is due, or was.
func (t *Timer) When() time.Duration { return t.when }

// Timers orders the timers of a loop, the next one first.
type Timers struct{ order order }

// Set sets a timer, or sets it anew.
func (t *Timers) Set(e *Timer, when time.Duration) {
	e.when = when
	if e.IsSet() {
		heap.Fix(&t.order, e.index-1)
		return
	}
	heap.Push(&t.order, e)
}

// SetEarlier sets a timer that is not set, or is set for later.
func (t *Timers) SetEarlier(e *Timer, when time.Duration) {
	if !e.IsSet() || when < e.when {
		t.Set(e, when)
	}
}

// Stop stops a timer, which may have fired.
func (t *Timers) Stop(e *Timer) {
	if e.IsSet() {
		heap.Remove(&t.order, e.index-1)
	}
}

// Fire calls the timers that are due.
func (t *Timers) Fire(now time.Duration) {
	for len(t.order) > 0 && t.order[0].when <= now {
		heap.Pop(&t.order).(*Timer).f()
	}
}

// Next returns when the next timer is due; false if there is none.
func (t *Timers) Next() (time.Duration, bool) {
	if len(t.order) == 0 {
		return 0, false
	}
	return t.order[0].when, true
}

// Len is the number of timers that are set.
func (t *Timers) Len() int { return len(t.order) }

// order is a heap (container/heap).
type order []*Timer

func (o order) Len() int           { return len(o) }
func (o order) Less(i, j int) bool { return o[i].when < o[j].when }

func (o order) Swap(i, j int) {
	o[i], o[j] = o[j], o[i]
	o[i].index, o[j].index = i+1, j+1
}

// Push implements heap.Interface.
func (o *order) Push(x any) {
	e := x.(*Timer)
	*o = append(*o, e)
	e.index = len(*o)
}

// Pop implements heap.Interface.
func (o *order) Pop() any {
	last := len(*o) - 1
	e := (*o)[last]
	(*o)[last] = nil
	*o = (*o)[:last]
	e.index = 0
	return e
}
