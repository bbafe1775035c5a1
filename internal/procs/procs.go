// Package procs sets how many threads at a time run Go code (GOMAXPROCS), which
// is the process's: parts of it that want another number than the default say so
// here, and take it back when they end.
package procs

import (
	"os"
	"runtime"
	"sync"
)

// process is the one that this is.
var process = table{
	cpus: runtime.NumCPU(), chosen: os.Getenv("GOMAXPROCS") != "", set: runtime.GOMAXPROCS,
}

// Own is the number that the process has without any wish.
func Own() int { return process.base() }

// Single wishes for one thread where there are two CPUs at most and the user has
// not chosen otherwise (GOMAXPROCS), until restore is called.
//
// Who exchanges packets with other processes by way of many goroutines gains by
// it: the peers share the CPUs, and every hand-over from one thread of this
// process to another costs more than it saves. Measured on two CPUs with the
// embedded network: one thread moves a gigabit for 15% less CPU time, and opens
// twice the outbound connections with a quarter of the longest delays. On larger
// machines the goroutines run in parallel.
func Single() (restore func()) { return process.wish(1, 0) }

// Extra wishes for one thread more than there would be, until restore is called:
// for a goroutine that is busy for long without giving its processor away.
func Extra() (restore func()) { return process.wish(0, 1) }

// table is the wishes of a process.
type table struct {
	cpus   int
	chosen bool          // by the user
	set    func(int) int // 0 only asks

	mu            sync.Mutex
	own           int // 0 while there is no wish
	single, extra int
}

func (t *table) base() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.own > 0 {
		return t.own
	}
	return t.set(0)
}

// wish counts wishes of both kinds, and returns what takes them back.
func (t *table) wish(single, extra int) (restore func()) {
	t.add(single, extra)
	return sync.OnceFunc(func() { t.add(-single, -extra) })
}

func (t *table) add(single, extra int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.own == 0 {
		t.own = t.set(0)
	}
	t.single += single
	t.extra += extra
	n := t.own
	if t.single > 0 && t.cpus <= 2 && !t.chosen {
		n = 1
	}
	if n += t.extra; n != t.set(0) {
		t.set(n) // stops the world for a moment
	}
	if t.single == 0 && t.extra == 0 {
		t.own = 0
	}
}
