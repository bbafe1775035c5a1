package relay

import (
	"container/heap"
	"time"
)

// timer is a function to call at a time of its loop's clock.
type timer struct {
	when  time.Duration
	f     func()
	index int // in the heap, plus one; 0: not in it
}

// timerHeap orders the timers of a loop, the next one first. There are few: a
// connection without problems has none.
type timerHeap struct{ order timerOrder }

func (h *timerHeap) add(t *timer) { heap.Push(&h.order, t) }

func (h *timerHeap) remove(t *timer) {
	if t.index > 0 {
		heap.Remove(&h.order, t.index-1)
	}
}

// fire calls the timers that are due.
func (h *timerHeap) fire(now time.Duration) {
	for len(h.order) > 0 && h.order[0].when <= now {
		heap.Pop(&h.order).(*timer).f()
	}
}

// timeout returns how long epoll_wait may block, in milliseconds; -1 means for ever.
func (h *timerHeap) timeout(now time.Duration) int {
	if len(h.order) == 0 {
		return -1
	}
	wait := max(h.order[0].when-now, 0)
	return int((wait + time.Millisecond - 1) / time.Millisecond)
}

type timerOrder []*timer

func (o timerOrder) Len() int           { return len(o) }
func (o timerOrder) Less(i, j int) bool { return o[i].when < o[j].when }

func (o timerOrder) Swap(i, j int) {
	o[i], o[j] = o[j], o[i]
	o[i].index, o[j].index = i+1, j+1
}

func (o *timerOrder) Push(x any) {
	t := x.(*timer)
	*o = append(*o, t)
	t.index = len(*o)
}

func (o *timerOrder) Pop() any {
	last := len(*o) - 1
	t := (*o)[last]
	(*o)[last] = nil
	*o = (*o)[:last]
	t.index = 0
	return t
}
