package procs

import "testing"

// fake is a runtime with a number of processors.
func fake(cpus, procs int, chosen bool) (*table, *int) {
	return &table{cpus: cpus, chosen: chosen, set: func(n int) int {
		before := procs
		if n > 0 {
			procs = n
		}
		return before
	}}, &procs
}

func TestWishes(t *testing.T) {
	for _, c := range []struct {
		name                        string
		cpus, procs                 int
		chosen                      bool
		single, both, extra, before int
	}{
		{"two CPUs", 2, 2, false, 1, 2, 3, 2},
		{"one CPU", 1, 1, false, 1, 2, 2, 1},
		{"four CPUs", 4, 4, false, 4, 5, 5, 4},
		{"chosen", 2, 3, true, 3, 4, 4, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			table, procs := fake(c.cpus, c.procs, c.chosen)
			expect := func(what string, want int) {
				t.Helper()
				if *procs != want || table.base() != c.before {
					t.Errorf("%s: %d processors, want %d; without a wish %d, want %d", what, *procs, want, table.base(), c.before)
				}
			}
			more := table.wish(1, 0)
			expect("one wish for a single one", c.single)
			single := table.wish(1, 0)
			more()
			more() // counts once
			expect("one of two wishes left", c.single)
			extra := table.wish(0, 1)
			expect("one more", c.both)
			single()
			expect("one more alone", c.extra)
			extra()
			expect("no wish left", c.before)
		})
	}
}

// TestChosenMeanwhile: a number that was set between two wishes is kept.
func TestChosenMeanwhile(t *testing.T) {
	table, procs := fake(2, 2, false)
	table.wish(1, 0)()
	*procs = 5
	table.wish(1, 0)()
	if *procs != 5 {
		t.Errorf("%d processors, want 5", *procs)
	}
}
