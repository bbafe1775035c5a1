package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// jobControlFlags are the combinations that decide who is whose session leader,
// process group and PID 1.
func jobControlFlags() (all []string) {
	for _, network := range []string{"--net=host", "--net=none", "--net=gvisor-tap-vsock --disable-host-loopback"} {
		for _, pids := range []string{"", " --pidns", " --pidns --reaper=false"} {
			all = append(all, network+pids)
		}
	}
	return append(all,
		"--net=gvisor-tap-vsock --disable-host-loopback --detach-netns",
		"--net=gvisor-tap-vsock --disable-host-loopback --pidns --port-driver=bypass4netns")
}

// onEachTerminal runs a test with each of them.
func onEachTerminal(t *testing.T, test func(t *testing.T, flags string)) {
	for _, flags := range jobControlFlags() {
		t.Run(strings.ReplaceAll(flags, " ", ""), func(t *testing.T) {
			t.Parallel()
			test(t, flags)
		})
	}
}

// terminal is what a person at a terminal sees and does.
type terminal struct {
	keys   *os.File
	screen *syncBuffer
}

func newTerminal(t *testing.T, keys *os.File, screen *syncBuffer) terminal {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the screen: %q", screen)
		}
	})
	return terminal{keys, screen}
}

func (term terminal) types(t *testing.T, s string) { t.Helper(); typeKeys(t, term.keys, s) }

// shows waits until a text has been on the screen n times.
func (term terminal) shows(t *testing.T, text string, n int) {
	t.Helper()
	poll(t, fmt.Sprintf("%q on the screen, %d times", text, n), func() bool { return strings.Count(term.screen.String(), text) >= n })
}

// answers has the shell in the foreground calculate something.
func (term terminal) answers(t *testing.T, question string) {
	t.Helper()
	term.types(t, "echo "+question+"-$((40+2))\n")
	term.shows(t, question+"-42", 1)
}

// sleeper is a process to be stopped and ended, which no other test has.
type sleeper string

func newSleeper(n int) sleeper {
	return sleeper(fmt.Sprintf("%d.%d", 1000+n, time.Now().UnixNano()))
}

// stat is what proc_pid_stat(5) has after the name: the state, the parent, the
// group, the session, the terminal and its group in the foreground; nil where the
// process does not run.
func (s sleeper) stat() []string {
	for _, found := range processesWith("sleep\x00" + string(s)) {
		cmdline, _, _ := strings.Cut(found, ":")
		stat, err := os.ReadFile(filepath.Join(filepath.Dir(cmdline), "stat"))
		if _, rest, ok := strings.Cut(string(stat), "(sleep) "); err == nil && ok {
			return strings.Fields(rest)
		}
	}
	return nil
}

// state is its state, "" where it does not run.
func (s sleeper) state() string {
	if stat := s.stat(); len(stat) > 0 {
		return stat[0]
	}
	return ""
}

func (s sleeper) awaitsForeground(t *testing.T) {
	t.Helper()
	poll(t, "sleep in the foreground", func() bool {
		stat := s.stat()
		return len(stat) > 5 && stat[0] == "S" && stat[2] == stat[5]
	})
}

func (s sleeper) awaits(t *testing.T, state string) {
	t.Helper()
	poll(t, fmt.Sprintf("the state %q of sleep", state), func() bool { return s.state() == state })
}

// TestJobControlInside: a shell under the launcher has job control.
func TestJobControlInside(t *testing.T) {
	onEachTerminal(t, func(t *testing.T, flags string) {
		keys, screen, cmd := onTerminal(t, append(strings.Fields(flags), "bash", "--norc", "--noediting", "-i")...)
		term := newTerminal(t, keys, screen)
		term.types(t, "PS1='prompt''> '\n")
		term.shows(t, "prompt> ", 1)

		first := newSleeper(1)
		term.types(t, "sleep "+string(first)+"\n")
		first.awaitsForeground(t)
		term.types(t, "\x03") // ends sleep, not the shell
		first.awaits(t, "")
		term.answers(t, "interrupted")

		second := newSleeper(2)
		term.types(t, "sleep "+string(second)+"\n")
		second.awaitsForeground(t)
		term.types(t, "\x1a")
		second.awaits(t, "T")
		term.answers(t, "stopped")
		term.types(t, "bg\n")
		second.awaits(t, "S")
		term.answers(t, "beside")
		term.types(t, "fg\n")
		second.awaitsForeground(t)
		term.types(t, "\x03")
		second.awaits(t, "")
		term.answers(t, "ended")

		resize(t, term)
		if strings.Contains(screen.String(), "no job control") {
			t.Errorf("the shell says so: %q", screen)
		}
		hangUp(t, term, func(s sleeper) string { return "sleep " + string(s) + "\n" })
		poll(t, "the end of the launcher", func() bool { return unix.Kill(cmd.Process.Pid, 0) != nil })
	})
}

// resize changes the size of the terminal, which the process in the foreground
// is told.
func resize(t *testing.T, term terminal) {
	t.Helper()
	term.types(t, `sh -c 'trap "stty size" WINCH; echo wait-$((40+2)); while :; do sleep 0.05; done'`+"\n")
	term.shows(t, "wait-42", 1)
	setSize(t, term.keys, 50, 132)
	term.shows(t, "50 132", 1)
	term.types(t, "\x03")
	term.answers(t, "resized")
}

func setSize(t *testing.T, keys *os.File, rows, columns uint16) {
	t.Helper()
	raw, err := keys.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	ctlErr := raw.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	})
	if err != nil || ctlErr != nil {
		t.Fatal(err, ctlErr)
	}
}

// hangUp closes the terminal, which ends what runs on it.
func hangUp(t *testing.T, term terminal, line func(sleeper) string) {
	t.Helper()
	s := newSleeper(3)
	term.types(t, line(s))
	s.awaits(t, "S")
	if err := term.keys.Close(); err != nil {
		t.Fatal(err)
	}
	s.awaits(t, "")
}

// TestJobControlOutside: the whole run is a job of the shell that started it.
func TestJobControlOutside(t *testing.T) {
	// Not a shell with a sleep: it may be stopped within vfork(2), where the child
	// is stopped and the shell waits for it, which is no stop to its parent.
	const command = `import itertools, os, signal, time; signal.signal(signal.SIGINT, lambda *_: print("INT-%d" % (40+2), flush=True)); ` +
		`[(open(os.environ["TMPDIR"] + "/count", "w").write(str(i)), time.sleep(0.02)) for i in itertools.count()]`
	onEachTerminal(t, func(t *testing.T, flags string) {
		keys, screen, shell := shellOnTerminal(t)
		term := newTerminal(t, keys, screen)
		run := bin("rootlesskit") + " " + flags
		term.types(t, fmt.Sprintf("%s python3 -c '%s'\n", run, command))
		counter := counter(filepath.Join(shell.tmp, "count"))
		for round := 1; round <= 2; round++ {
			poll(t, "the command", counter.counts)
			term.types(t, "\x1a")
			term.shows(t, "Stopped", round)
			poll(t, "the command to stop", func() bool { return !counter.counts() })
			term.types(t, "bg\n")
			poll(t, "the command, in the background", counter.counts)
			term.answers(t, fmt.Sprint("beside", round))
			term.types(t, "fg\n")
		}
		poll(t, "the command, continued", counter.counts)
		term.types(t, "\x03")
		term.shows(t, "INT-42", 1)
		if !counter.counts() {
			t.Error("stopped again")
		}
		term.types(t, "\x1c") // SIGQUIT
		term.answers(t, "quit")
		if n := strings.Count(screen.String(), "INT-42"); n != 1 {
			t.Errorf("SIGINT arrived %d times", n)
		}
		readInBackground(t, term, run)
		hangUp(t, term, func(s sleeper) string { return run + " sleep " + string(s) + "\n" })
	})
}

// readInBackground: what reads from the terminal in the background is stopped,
// and takes nothing of what is typed to the shell.
func readInBackground(t *testing.T, term terminal, run string) {
	t.Helper()
	term.types(t, run+" sh -c 'echo reader-$((40+2)); exec cat'\n")
	term.shows(t, "reader-42", 1)
	term.types(t, "before\n")
	term.shows(t, "before", 2) // the terminal's echo and the command's
	stops := strings.Count(term.screen.String(), "Stopped")
	term.types(t, "\x1a")
	term.shows(t, "Stopped", stops+1)
	term.types(t, "bg\n")
	term.types(t, "jobs\n")
	for i := range 5 {
		term.answers(t, fmt.Sprint("shell", i))
	}
	term.types(t, "fg\n")
	term.types(t, "after\n")
	term.shows(t, "after", 2)
	term.types(t, "\x04")
	term.answers(t, "read")
}

// counter is a file in which a command counts.
type counter string

func (c counter) counts() bool {
	read := func() string { b, _ := os.ReadFile(string(c)); return string(b) }
	before := read()
	for range 50 {
		time.Sleep(10 * time.Millisecond)
		if now := read(); now != before && now != "" {
			return true
		}
	}
	return false
}
