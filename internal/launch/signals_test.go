package launch

import (
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLateCopies: a signal that waits for its second copy is taken back by one that
// undoes it.
func TestLateCopies(t *testing.T) {
	command := exec.Command("sleep", "8640")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	}()
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
			s.sort(command.Process.Pid, waiting, sig, false)
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
		"oop": 0, "opo": 0, "ppo": 0, // the kernel has merged two
		"o....................p": 0,                           // the parent is slow
		"p":                      1, "o": 1, "pp": 1, "oo": 1, // sent to one of both
		"opp": 1, "op..........p": 1,
	} {
		s := &signalSorter{terminal: true}
		waiting := map[unix.Signal]copies{}
		now, sent := time.Now(), 0
		due := func() {
			command := exec.Command("sleep", "8640")
			if err := command.Start(); err != nil {
				t.Fatal(err)
			}
			sendDue(command.Process.Pid, waiting, now)
			_ = command.Process.Kill()
			_ = command.Wait()
			if command.ProcessState.Sys().(syscall.WaitStatus).Signal() == unix.SIGINT {
				sent++
			}
		}
		for _, e := range events {
			switch e {
			case tick:
				now = now.Add(echoTick)
				due()
			default:
				s.sort(-1<<30, waiting, unix.SIGINT, e == passed)
			}
		}
		now = now.Add(2 * parentPatience)
		for range echoTicks {
			due()
		}
		if sent != want || len(waiting) > 0 {
			t.Errorf("%q: %d were passed, want %d; %d wait", events, sent, want, len(waiting))
		}
	}
}
