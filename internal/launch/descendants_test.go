package launch

import (
	"os"
	"os/exec"
	"slices"
	"testing"
)

// TestChildren has the kernel's lists of children and the parents of all processes
// say the same, of children that different threads have started.
func TestChildren(t *testing.T) {
	var want []int
	for range 20 {
		cmd := exec.Command("sleep", "1000")
		started := make(chan error)
		go func() { started <- cmd.Start() }()
		if err := <-started; err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		want = append(want, cmd.Process.Pid)
	}
	slices.Sort(want)
	for name, list := range map[string]func(int) []int{"lists": childrenOf, "stat": childrenByStat} {
		got := list(os.Getpid())
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}
