package launch

import (
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// nobody is a PID that no process has: sort has nothing to send in these tests.
const nobody = -1 << 30

// TestLateCopies: a signal that waits for its second copy is taken back by one that
// undoes it.
func TestLateCopies(t *testing.T) {
	for _, tt := range []struct {
		come, wait []unix.Signal
	}{
		{[]unix.Signal{unix.SIGCONT, unix.SIGTSTP}, []unix.Signal{unix.SIGTSTP}},
		{[]unix.Signal{unix.SIGCONT, unix.SIGTTIN}, []unix.Signal{unix.SIGTTIN}},
		{[]unix.Signal{unix.SIGTSTP, unix.SIGTTOU, unix.SIGCONT}, []unix.Signal{unix.SIGCONT}},
		{[]unix.Signal{unix.SIGCONT, unix.SIGWINCH}, []unix.Signal{unix.SIGCONT, unix.SIGWINCH}},
	} {
		s := &signalSorter{terminal: true}
		waiting := map[unix.Signal]copies{}
		for _, sig := range tt.come {
			s.sort(nobody, waiting, sig, false)
		}
		for sig := range waiting {
			if !slices.Contains(tt.wait, sig) {
				t.Errorf("%v: %v waits", tt.come, sig)
			}
		}
		if len(waiting) != len(tt.wait) {
			t.Errorf("%v: %d wait, want %v", tt.come, len(waiting), tt.wait)
		}
	}
}

// TestCopiesMeet: a signal of the terminal is not passed, however late or merged its
// copies are, and one that was sent to the launcher or the child alone is, once.
func TestCopiesMeet(t *testing.T) {
	const own, passed, tick = 'o', 'p', '.'
	for events, want := range map[string]int{
		"op": 0, "po": 0, "opop": 0, "oopp": 0, "ppoo": 0,
		// The kernel has merged two.
		"oop": 0, "opo": 0, "ppo": 0,
		// The parent is slow.
		"o....................p": 0,
		// They were sent to one of both.
		"p": 1, "o": 1, "pp": 1, "oo": 1, "opp": 1, "op..........p": 1,
	} {
		s := &signalSorter{terminal: true}
		waiting := map[unix.Signal]copies{}
		now, sent := time.Now(), 0
		for _, e := range events {
			switch e {
			case tick:
				now = now.Add(echoTick)
				sent += len(due(waiting, now))
			case own, passed:
				s.sort(nobody, waiting, unix.SIGINT, e == passed)
			}
		}
		now = time.Now().Add(2 * parentPatience) // sort reads the real clock
		for range echoTicks {
			sent += len(due(waiting, now))
		}
		if sent != want || len(waiting) > 0 {
			t.Errorf("%q: %d were passed, want %d; %d wait", events, sent, want, len(waiting))
		}
	}
}
