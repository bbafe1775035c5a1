// Package procs sets how many threads run Go code at the same time (GOMAXPROCS).
// This setting affects the whole process: parts that need a number other than
// the default request it here, and withdraw the request when they end.
package procs

import (
	"os"
	"runtime"
	"sync"
)

// process is the current process.
var process = table{
	cpus: runtime.NumCPU(), chosen: os.Getenv("GOMAXPROCS") != "", set: runtime.GOMAXPROCS,
}

// Own returns the number without any requests.
func Own() int { return process.base() }

// Single requests a single thread until restore is called. It has an effect if
// there are at most two CPUs and the user has not set GOMAXPROCS.
//
// A driver that exchanges packets with other processes through many goroutines
// becomes faster: the peers share the CPUs, and every hand-over from one thread
// of this process to another costs more than it saves. Measured on two CPUs with
// the embedded network: a single thread moves a gigabit with 15% less CPU time,
// and opens twice as many outbound connections with a quarter of the longest
// delays. On larger machines the goroutines run in parallel.
func Single() (restore func()) { return process.wish(1, 0) }

// Extra requests one additional thread until restore is called, for a goroutine
// that stays busy for long without yielding its processor.
func Extra() (restore func()) { return process.wish(0, 1) }

// table has the requests of a process.
type table struct {
	cpus   int
	chosen bool          // by the user
	set    func(int) int // 0 only asks

	mu            sync.Mutex
	own           int // 0 while there is no request
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

// wish counts requests of both kinds, and returns a function that withdraws them.
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
