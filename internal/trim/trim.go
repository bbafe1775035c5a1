// Package trim returns memory that only the start of a process needed.
package trim

import (
	"context"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// trimAfter is long enough that short commands never pay for it.
	trimAfter = time.Second
	// trimIdle is the CPU time that the process may have used in trimAfter.
	trimIdle = 20 * time.Millisecond
)

// Later returns the heap that only the start needed to the system. It does so
// once, at the first pause, since it would delay a busy process. stop prevents it.
func Later() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		if awaitPause(ctx) {
			debug.FreeOSMemory()
		}
	}()
	return cancel
}

// awaitPause waits until the process has been idle for trimAfter. It returns
// false if ctx ends first.
func awaitPause(ctx context.Context) bool {
	tick := time.NewTicker(trimAfter)
	defer tick.Stop()
	for before := cpuTime(); ; {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
		now := cpuTime()
		if now-before < trimIdle {
			return true
		}
		before = now
	}
}

// cpuTime returns the CPU time that the process has used so far.
func cpuTime() time.Duration {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
