package compat

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func deadline(seconds int) time.Time { return time.Now().Add(time.Duration(seconds) * time.Second) }

func (s *subject) tool(t *testing.T, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(t.Context(), name, args...)
}

func getLinger(fd int) (l unix.Linger, err error) {
	size := uint32(unsafe.Sizeof(l))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_LINGER,
		uintptr(unsafe.Pointer(&l)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return l, errno
	}
	return l, nil
}

// TestSignals compares which signals of the launcher reach the command, each
// before a SIGUSR1 that shows that the launcher is still there.
func TestSignals(t *testing.T) {
	for _, flags := range []string{"--net=host", "--net=none --pidns", "--net=none --pidns --reaper=false"} {
		for sig := syscall.Signal(1); sig < 32; sig++ {
			switch sig {
			case syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGUSR1,
				syscall.SIGILL, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGSEGV: // faults of the launcher's own
				continue
			}
			t.Run(flags+" "+unix.SignalName(sig), func(t *testing.T) {
				t.Parallel()
				compare(t, func(t *testing.T, s *subject) { s.signal(t, sig, strings.Fields(flags)) })
			})
		}
	}
}

func (s *subject) signal(t *testing.T, sig syscall.Signal, flags []string) {
	cmd := s.startCommand(t, flags, inBin("probe"), "signals", "99")
	s.await(t, "ready", func() bool { return strings.Contains(s.output(), "ready\n") })
	_ = cmd.Process.Signal(sig)
	ended := func() bool {
		stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "stat"))
		return err != nil || strings.Contains(string(stat), ") Z ")
	}
	// Of signals that wait together, Go passes on the lowest first, in the launcher as
	// in the command. So the third answer is after all that came before the first.
	answered := func() bool { return strings.Count(s.output(), "user defined signal 1") >= 3 }
	for until := deadline(20); !answered() && !ended() && time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
		_ = cmd.Process.Signal(syscall.SIGUSR1)
	}
	state := fmt.Sprint(ended())
	if !answered() && !ended() {
		state = "it hangs"
	}
	var arrived []string
	for _, line := range strings.Split(s.output(), "\n") {
		if line != "ready" && line != "user defined signal 1" && line != "" && !logged.MatchString(line) {
			arrived = append(arrived, line)
		}
	}
	s.say("the launcher ended", state)
	s.saidf("arrived", "%q", arrived)
	_ = cmd.Process.Kill()
}
