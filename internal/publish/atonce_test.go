package publish

import (
	"errors"
	"net/netip"
	"sync"
	"testing"

	"rootlesskit/api"
	"rootlesskit/internal/nstest"
)

// TestManyAtOnce opens ports at the same time, while the namespace's address changes, and
// closes all while the last of them still open: nothing is left, which the end of the
// package's tests checks.
func TestManyAtOnce(t *testing.T) {
	r := newOwnTest(t)
	const early, all = 50, 100
	var numbers []int
	for range all {
		numbers = append(numbers, nstest.FreePort(t))
	}
	var opening sync.WaitGroup
	opened := func(from, to int, allowed error) {
		for _, number := range numbers[from:to] {
			opening.Go(func() {
				for _, proto := range []api.Proto{"tcp", "udp"} {
					_, err := r.ports.Forward(api.PortSpec{Proto: proto, ParentIP: "127.0.0.1", ParentPort: number, ChildPort: 80})
					if err != nil && (allowed == nil || !errors.Is(err, allowed)) {
						t.Errorf("port %d: %v", number, err)
					}
				}
			})
		}
	}
	opened(0, early, nil)
	opening.Go(func() {
		for _, own := range []string{"10.89.1.5", "fd00::100", "10.0.2.100"} {
			r.ports.Retarget(netip.MustParseAddr(own))
		}
	})
	opening.Wait()
	opened(early, all, errClosed)
	r.ports.Close()
	opening.Wait()
	if n := len(r.ports.open); n > 0 {
		t.Errorf("%d ports are open", n)
	}
}
