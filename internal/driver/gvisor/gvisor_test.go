package gvisor

import (
	"os"
	"runtime"
	"testing"

	"fmt"

	"net/netip"

	"strings"
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

// TestNeighboursAreKnown: the namespace does not ask for the hardware address of the
// gateway. A flood loses three such questions in a row, and then nothing has a route.
func TestNeighboursAreKnown(t *testing.T) {
	s := newSandbox(t)
	known := ipIn(t, s.child, "neigh", "show", "nud", "permanent", "dev", s.link.Ifname)
	for _, ip := range []netip.Addr{s.network.plan.gateway4, s.network.plan.dns4, s.network.plan.gateway6} {
		if want := fmt.Sprintf("%s lladdr %s", ip, s.network.plan.gatewayMAC); !strings.Contains(known, want) {
			t.Errorf("no %q in %s", want, known)
		}
	}
}
