// Package trim gives back the memory that only the start of a process needed.
package trim

import (
	"context"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// trimAfter is long enough for short commands never to pay for it.
	trimAfter = time.Second
	// trimIdle is the CPU time that the process may have used in trimAfter.
	trimIdle = 20 * time.Millisecond
)

// Later gives the heap that only the start needed back to the system: once, at the
// first pause, as that would delay a process that works. stop prevents it.
func Later() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		if awaitPause(ctx) {
			debug.FreeOSMemory()
		}
	}()
	return cancel
}

// awaitPause waits until the process was idle for trimAfter; false: ctx ended.
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

// cpuTime is what the process has used so far.
func cpuTime() time.Duration {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
