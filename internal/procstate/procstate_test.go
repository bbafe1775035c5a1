package procstate

import (
	"os"
	"os/exec"
	"testing"
)

// TestIsEnding: the living are not, nor is one that is nobody's number.
func TestIsEnding(t *testing.T) {
	if IsEnding(os.Getpid()) || IsEnding(1) {
		t.Error("a living process is said to end")
	}
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	if IsEnding(cmd.Process.Pid) {
		t.Error("a process that has just been started is said to end")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if !IsEnding(cmd.Process.Pid) { // from the moment of the kill on
		t.Error("a killed process is said to live")
	}
	if !IsEnding(1 << 30) {
		t.Error("a process that never was is said to live")
	}
}
