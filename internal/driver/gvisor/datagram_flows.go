package gvisor

import (
	"container/list"
	"sync"
	"time"
)

// flowTable has what a connectionless protocol needs for each flow, up to a
// number of flows: the least recently used one makes room for a new one, so
// that a flood of flows only removes its own and long idle ones.
type flowTable[K comparable, V any] struct {
	max    int
	idle   time.Duration
	retire func(K, V) // called without the lock, when a flow has left the table

	mu     sync.Mutex
	now    func() time.Time // tests replace the clock
	closed bool
	m      map[K]*list.Element
	lru    list.List // of *flowEntry[K, V], most recently used first
}

type flowEntry[K comparable, V any] struct {
	key   K
	value V
	used  time.Time
}

func newFlowTable[K comparable, V any](max int, idle time.Duration, retire func(K, V)) *flowTable[K, V] {
	return &flowTable[K, V]{max: max, idle: idle, retire: retire, now: time.Now, m: map[K]*list.Element{}}
}

// get returns a flow and marks it as used.
func (t *flowTable[K, V]) get(key K) (value V, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, ok := t.m[key]
	if !ok {
		return value, false
	}
	entry := e.Value.(*flowEntry[K, V])
	entry.used = t.now()
	t.lru.MoveToFront(e)
	return entry.value, true
}

// add adds a flow. It returns false, and does not retire the value, if there is
// a flow with that key, or the table is closed.
func (t *flowTable[K, V]) add(key K, value V) bool {
	t.mu.Lock()
	if _, taken := t.m[key]; taken || t.closed {
		t.mu.Unlock()
		return false
	}
	var out *flowEntry[K, V]
	if len(t.m) >= t.max {
		out = t.unlink(t.lru.Back())
	}
	t.m[key] = t.lru.PushFront(&flowEntry[K, V]{key: key, value: value, used: t.now()})
	t.mu.Unlock()
	if out != nil {
		t.retire(out.key, out.value)
	}
	return true
}

// unlink removes an element, with the lock held.
func (t *flowTable[K, V]) unlink(e *list.Element) *flowEntry[K, V] {
	entry := t.lru.Remove(e).(*flowEntry[K, V])
	delete(t.m, entry.key)
	return entry
}

// remove retires a flow, if the table has it.
func (t *flowTable[K, V]) remove(key K) {
	t.mu.Lock()
	e, ok := t.m[key]
	if !ok {
		t.mu.Unlock()
		return
	}
	entry := t.unlink(e)
	t.mu.Unlock()
	t.retire(entry.key, entry.value)
}

// expire retires the flows that have been idle for too long.
func (t *flowTable[K, V]) expire(now time.Time) {
	t.retireBack(func(e *flowEntry[K, V]) bool { return now.Sub(e.used) >= t.idle })
}

// close retires all flows. None can be added any more.
func (t *flowTable[K, V]) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.retireBack(func(*flowEntry[K, V]) bool { return true })
}

// retireBack retires the least recently used flows while they match.
func (t *flowTable[K, V]) retireBack(match func(*flowEntry[K, V]) bool) {
	for {
		t.mu.Lock()
		back := t.lru.Back()
		if back == nil || !match(back.Value.(*flowEntry[K, V])) {
			t.mu.Unlock()
			return
		}
		entry := t.unlink(back)
		t.mu.Unlock()
		t.retire(entry.key, entry.value)
	}
}
