package gvisor

import (
	"os"
	"runtime"
	"testing"
)

// TestOneProcessor: where there are two CPUs, Go code runs on one thread while the
// network runs, whichever port driver is beside it, and on as many as before
// afterwards.
func TestOneProcessor(t *testing.T) {
	if os.Getenv("GOMAXPROCS") != "" || runtime.NumCPU() > 2 {
		t.Skip("the number of processors is left alone here")
	}
	before := runtime.GOMAXPROCS(0)
	t.Run("network", func(t *testing.T) {
		newSandbox(t)
		eventually(t, "one processor", func() bool { return runtime.GOMAXPROCS(0) == 1 })
	})
	if n := runtime.GOMAXPROCS(0); n != before {
		t.Errorf("%d processors after the network's end, want %d", n, before)
	}
}
