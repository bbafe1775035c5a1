package test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/nstest"
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
func onTerminal(t *testing.T, args ...string) (keys *os.File, screen *nstest.Buffer, cmd *exec.Cmd) {
	t.Helper()
	return programOnTerminal(t, t.TempDir(), bin("rootlesskit"), args...)
}

func programOnTerminal(t *testing.T, tmp, program string, args ...string) (keys *os.File, screen *nstest.Buffer, cmd *exec.Cmd) {
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
	screen = &nstest.Buffer{}
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
	// Not a shell: it looks at its traps between two commands, when copies of a
	// signal have become one.
	const script = `
import os, signal
for name in "INT", "QUIT", "USR1":
    signal.signal(getattr(signal, "SIG" + name), lambda *_, name=name: os.write(1, b"got %s\n" % name.encode()))
os.write(1, b"ready\n")
while True: signal.pause()`
	for _, flags := range [][]string{{"--net=none"}, {"--pidns"}, {"--pidns", "--reaper=false"}} {
		keys, screen, cmd := onTerminal(t, append(flags, "python3", "-I", "-c", script)...)
		poll(t, "ready", func() bool { return strings.Contains(screen.String(), "ready") })
		typeKeys(t, keys, "\x03")
		poll(t, "INT", func() bool { return strings.Contains(screen.String(), "got INT") })
		typeKeys(t, keys, "\x1c")
		poll(t, "QUIT", func() bool { return strings.Contains(screen.String(), "got QUIT") })
		// A signal of a higher number comes last, so whatever the keys caused has been
		// through.
		if err := unix.Kill(cmd.Process.Pid, unix.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		poll(t, "USR1", func() bool { return strings.Contains(screen.String(), "got USR1") })
		// One sent to the launcher alone arrives too.
		if err := unix.Kill(cmd.Process.Pid, unix.SIGINT); err != nil {
			t.Fatal(err)
		}
		poll(t, "the second INT", func() bool { return strings.Count(screen.String(), "got INT") >= 2 })
		if n := strings.Count(screen.String(), "got"); n != 4 {
			t.Errorf("%v: %d signals arrived, want 4: %q", flags, n, screen)
		}
	}
}

// TestInteractiveShell: job control works under the launcher.
func TestInteractiveShell(t *testing.T) {
	for _, flags := range [][]string{
		{"--net=none"},
		{"--pidns"},
		{"--pidns", "--reaper=false"},
		{"--pidns", "--reaper=true", "--net=none"},
		{"--net=gvisor-tap-vsock", "--disable-host-loopback", "--detach-netns"},
		{"--net=gvisor-tap-vsock", "--disable-host-loopback", "--pidns", "--port-driver=bypass4netns"},
	} {
		t.Run(strings.Join(flags, " "), func(t *testing.T) { testInteractiveShell(t, flags) })
	}
}

var sleeps atomic.Int64

// seconds is a time to sleep that no other process of the machine sleeps for.
func seconds() string { return fmt.Sprintf("%d%03d", os.Getpid(), sleeps.Add(1)) }

func sleeping(seconds string) bool { return len(processesWith("sleep\x00"+seconds+"\x00")) > 0 }

// inForeground reports whether a sleep has the terminal. Keys that send signals are
// not to be typed before: the shell would get them.
func inForeground(keys *os.File, seconds string) bool {
	group, err := unix.IoctlGetInt(int(keys.Fd()), unix.TIOCGPGRP)
	if err != nil {
		return false
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", group))
	return err == nil && string(b) == "sleep\x00"+seconds+"\x00"
}

func testInteractiveShell(t *testing.T, flags []string) {
	keys, screen, _ := onTerminal(t, append(flags, "bash", "--norc", "-i")...)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the screen: %q", screen)
		}
	})
	typeKeys(t, keys, "PS1='prompt> '\n")
	poll(t, "a prompt", func() bool { return strings.Count(screen.String(), "prompt> ") >= 2 })
	first, second, third := seconds(), seconds(), seconds()
	typeKeys(t, keys, "sleep "+first+"\n")
	poll(t, "sleep", func() bool { return inForeground(keys, first) })
	typeKeys(t, keys, "\x03") // ends sleep, not the shell
	poll(t, "the end of sleep", func() bool { return !sleeping(first) })
	typeKeys(t, keys, "sleep "+second+"\n")
	poll(t, "sleep", func() bool { return inForeground(keys, second) })
	typeKeys(t, keys, "\x1a")
	poll(t, "the stopped job", func() bool { return strings.Contains(screen.String(), "Stopped") })
	typeKeys(t, keys, "bg\n")
	poll(t, "the job in the background", func() bool { return strings.Contains(screen.String(), "sleep "+second+" &") })
	typeKeys(t, keys, "fg\n")
	poll(t, "the job in the foreground", func() bool { return inForeground(keys, second) })
	typeKeys(t, keys, "\x03")
	poll(t, "the end of sleep", func() bool { return !sleeping(second) })
	if err := unix.IoctlSetWinsize(int(keys.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: 132}); err != nil {
		t.Fatal(err)
	}
	typeKeys(t, keys, "stty size\n")
	poll(t, "the new size", func() bool { return strings.Contains(screen.String(), "50 132") })
	typeKeys(t, keys, "sleep "+third+" &\n")
	poll(t, "sleep", func() bool { return sleeping(third) })
	typeKeys(t, keys, "kill %1; echo still-$((40+2))\n")
	poll(t, "the shell's answer", func() bool { return strings.Contains(screen.String(), "still-42") })
	if strings.Contains(screen.String(), "no job control") {
		t.Errorf("no job control: %q", screen)
	}
}

// TestSuspend: Ctrl-Z in a shell stops the whole run, and fg continues it.
func TestSuspend(t *testing.T) {
	// Not a shell with a sleep: it may be stopped within vfork(2), where the child
	// is stopped and the shell waits for it, which is no stop to its parent.
	const command = `import itertools, os, signal, time; signal.signal(signal.SIGINT, lambda *_: print("INT-%d" % (40+2), flush=True)); ` +
		`[(open(os.environ["TMPDIR"] + "/count", "w").write(str(i)), time.sleep(0.02)) for i in itertools.count()]`
	for _, flags := range []string{"--net=none", "--pidns", "--pidns --reaper=false", "--net=gvisor-tap-vsock --disable-host-loopback"} {
		keys, screen, shell := shellOnTerminal(t)
		counter := filepath.Join(shell.tmp, "count")
		count := func() string { b, _ := os.ReadFile(counter); return string(b) }
		counting := func() bool {
			before := count()
			for range 50 {
				time.Sleep(10 * time.Millisecond)
				if now := count(); now != before && now != "" {
					return true
				}
			}
			return false
		}
		typeKeys(t, keys, fmt.Sprintf("%s %s python3 -c '%s'\n", bin("rootlesskit"), flags, command))
		for round := 1; round <= 2; round++ {
			poll(t, "the command", counting)
			typeKeys(t, keys, "\x1a")
			poll(t, "the shell", func() bool { return strings.Count(screen.String(), "Stopped") == round })
			poll(t, "the command to stop", func() bool { return !counting() })
			typeKeys(t, keys, "fg\n")
		}
		poll(t, "the command, continued", counting)
		typeKeys(t, keys, "\x03")
		poll(t, "SIGINT", func() bool { return strings.Contains(screen.String(), "INT-42") })
		poll(t, "the command, which goes on", counting)
		if n := strings.Count(screen.String(), "INT-42"); n != 1 {
			t.Errorf("%s: SIGINT arrived %d times: %q", flags, n, screen)
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
	stopped := func(pid int) bool {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		return err == nil && strings.Contains(string(status), "State:\tT")
	}
	poll(t, "the command to stop", func() bool { return slices.ContainsFunc(treeOf(cmd.Process.Pid), stopped) })
	time.Sleep(300 * time.Millisecond) // nothing may come: there is no state to wait for
	if stopped(cmd.Process.Pid) {
		t.Error("the launcher was stopped")
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

func shellOnTerminal(t *testing.T) (keys *os.File, screen *nstest.Buffer, shell terminalShell) {
	t.Helper()
	tmp := t.TempDir()
	keys, screen, cmd := programOnTerminal(t, tmp, "bash", "--norc", "-i")
	return keys, screen, terminalShell{cmd, tmp}
}

// TestHangUp: the end of the terminal ends the run.
func TestHangUp(t *testing.T) {
	for _, flags := range [][]string{{"--net=none"}, {"--pidns"}, {"--pidns", "--reaper=false"}} {
		duration := seconds()
		keys, _, cmd := onTerminal(t, append(flags, "sleep", duration)...)
		poll(t, "the command", func() bool { return sleeping(duration) })
		keys.Close()
		poll(t, "the end of the command", func() bool { return !sleeping(duration) })
		poll(t, "the end of the launcher", func() bool { return commandLine(cmd.Process.Pid) == "" })
	}
}
