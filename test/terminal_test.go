package test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openPTY returns both ends of a pseudo-terminal (pty(7)).
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	raw, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	ctlErr := raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			n, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if err != nil || ctlErr != nil {
		t.Fatal(err, ctlErr)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// onTerminal starts rootlesskit as the foreground process of a terminal.
func onTerminal(t *testing.T, args ...string) (keys *os.File, screen *syncBuffer, cmd *exec.Cmd) {
	t.Helper()
	return programOnTerminal(t, t.TempDir(), bin("rootlesskit"), args...)
}

func programOnTerminal(t *testing.T, tmp, program string, args ...string) (keys *os.File, screen *syncBuffer, cmd *exec.Cmd) {
	t.Helper()
	master, slave := openPTY(t)
	cmd = exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "TERM=dumb", "TMPDIR="+tmp)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	screen = &syncBuffer{}
	go func() { _, _ = io.Copy(screen, master) }()
	return master, screen, cmd
}

func typeKeys(t *testing.T, keys *os.File, s string) {
	t.Helper()
	if _, err := keys.WriteString(s); err != nil {
		t.Fatal(err)
	}
}

// TestCtrlCArrivesOnce: the terminal's signal reaches the command directly;
// parent and child must not add their own.
func TestCtrlCArrivesOnce(t *testing.T) {
	const script = `trap 'echo got INT' INT; trap 'echo got QUIT' QUIT; echo ready; while :; do sleep 0.02; done`
	for _, flags := range [][]string{{"--net=none"}, {"--pidns"}, {"--pidns", "--reaper=false"}} {
		keys, screen, cmd := onTerminal(t, append(flags, "sh", "-c", script)...)
		poll(t, "ready", func() bool { return strings.Contains(screen.String(), "ready") })
		typeKeys(t, keys, "\x03")
		poll(t, "INT", func() bool { return strings.Contains(screen.String(), "got INT") })
		typeKeys(t, keys, "\x1c")
		poll(t, "QUIT", func() bool { return strings.Contains(screen.String(), "got QUIT") })
		// A signal sent to the launcher alone arrives too. It also tells that
		// whatever the keys caused has been through.
		time.Sleep(200 * time.Millisecond) // nothing may come: there is no state to wait for
		if err := unix.Kill(cmd.Process.Pid, unix.SIGINT); err != nil {
			t.Fatal(err)
		}
		poll(t, "the second INT", func() bool { return strings.Count(screen.String(), "got INT") >= 2 })
		if n := strings.Count(screen.String(), "got"); n != 3 {
			t.Errorf("%v: %d signals arrived, want 3: %q", flags, n, screen)
		}
	}
}

// TestSuspendOfAShell: the command has a process group of its own.
func TestSuspendOfAShell(t *testing.T) {
	keys, screen, _ := shellOnTerminal(t)
	typeKeys(t, keys, bin("rootlesskit")+" --net=none bash --norc -i\n")
	typeKeys(t, keys, "PS1='inner''> '\n")
	poll(t, "a prompt", func() bool { return strings.Contains(screen.String(), "inner> ") })
	typeKeys(t, keys, "suspend\n")
	poll(t, "the outer shell", func() bool { return strings.Contains(screen.String(), "Stopped") })
	typeKeys(t, keys, "fg\n")
	typeKeys(t, keys, "echo answer-$((40+2)) $ROOTLESSKIT_PARENT_EUID\n")
	want := fmt.Sprintf("answer-42 %d", os.Getuid())
	poll(t, "the inner shell", func() bool { return strings.Contains(screen.String(), want) })
}

// TestOrphansAreNotSuspended: where no shell could continue it, the launcher
// goes on, whatever its command does.
func TestOrphansAreNotSuspended(t *testing.T) {
	_, screen, cmd := onTerminal(t, "--net=none", "--port-driver=builtin", "sh", "-c", "echo ready; kill -STOP $$; echo continued")
	poll(t, "ready", func() bool { return strings.Contains(screen.String(), "ready") })
	time.Sleep(300 * time.Millisecond) // nothing may come: there is no state to wait for
	if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid)); err != nil || !strings.Contains(string(status), "State:\tS") {
		t.Errorf("%v: %s", err, status)
	}
	if err := unix.Kill(cmd.Process.Pid, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	poll(t, "the command", func() bool { return strings.Contains(screen.String(), "continued") })
}

// terminalShell is a shell with job control on a terminal.
type terminalShell struct {
	*exec.Cmd
	tmp string
}

func shellOnTerminal(t *testing.T) (keys *os.File, screen *syncBuffer, shell terminalShell) {
	t.Helper()
	tmp := t.TempDir()
	keys, screen, cmd := programOnTerminal(t, tmp, "bash", "--norc", "-i")
	return keys, screen, terminalShell{cmd, tmp}
}
