package launch

import (
	"os/exec"
	"slices"
	"testing"

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
		waiting := map[unix.Signal]copyOf{}
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
