package eventloop

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestTimers sets, moves and stops timers at random: those that are set fire once, in
// the order of their times, and each knows its place.
func TestTimers(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		var timers Timers
		var fired []time.Duration
		all := make([]Timer, 20)
		for i := range all {
			all[i] = NewTimer(func() { fired = append(fired, all[i].When()) })
		}
		for range 200 {
			e, when := &all[r.IntN(len(all))], time.Duration(r.IntN(1000))
			switch r.IntN(3) {
			case 0:
				timers.Set(e, when)
			case 1:
				was, set := e.When(), e.IsSet()
				if timers.SetEarlier(e, when); set && e.When() != min(was, when) || !set && e.When() != when {
					t.Fatalf("set for %d, then earlier for %d: %d", was, when, e.When())
				}
			case 2:
				timers.Stop(e)
			}
			for i, e := range timers.order {
				if e.index != i+1 {
					t.Fatalf("the timer at %d takes itself to be at %d", i+1, e.index)
				}
			}
		}
		set := timers.Len()
		timers.Fire(time.Second)
		if len(fired) != set || !slices.IsSorted(fired) || timers.Len() != 0 {
			t.Fatalf("%d of %d timers fired, at %v", len(fired), set, fired)
		}
	}
}
