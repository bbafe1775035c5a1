package gvisor

import (
	"os"
	"runtime"
)

// limitProcessors lets one thread at a time run Go code where the machine has
// two CPUs at most and the user has not chosen otherwise (GOMAXPROCS).
//
// The client, the server in the namespace and this process then share the
// CPUs, and every hand-over from one thread of this process to another costs
// more than it gains: measured on two CPUs, one thread moves a gigabit for 15%
// less CPU time, answers a request for 30% less, and opens 20% more
// connections a second. On larger machines connections run in parallel.
func limitProcessors() {
	if runtime.NumCPU() <= 2 && os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
}
