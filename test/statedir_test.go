package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestStateDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := os.MkdirAll(filepath.Join(dir, "stale"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "lock"), nil, 0o600); err != nil { // what a killed run leaves
		t.Fatal(err)
	}
	r := runKit(t, "--state-dir="+dir, "sh", "-c", "ls -A $ROOTLESSKIT_STATE_DIR; cat $ROOTLESSKIT_STATE_DIR/child_pid; stat -c %a $ROOTLESSKIT_STATE_DIR/*")
	pid, _, _ := strings.Cut(strings.TrimPrefix(r.stdout, "api.sock\nchild_pid\nlock\n"), "600\n")
	if _, err := strconv.Atoi(pid); err != nil {
		t.Errorf("child_pid holds %q: %q", pid, r.stdout)
	}
	if !strings.HasSuffix(r.stdout, "600\n444\n600\n") {
		t.Errorf("modes: %q", r.stdout)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the state directory is left: %v", err)
	}
}

func TestStateDirIsLocked(t *testing.T) {
	k := startKit(t, "sleep", "infinity")
	r := runKit(t, "--state-dir="+k.stateDir, "true")
	want := fmt.Sprintf("[rootlesskit:parent] error: failed to lock %s/lock, another RootlessKit is running with the same state directory?\n", k.stateDir)
	if r.code != 1 || r.stderr != want {
		t.Errorf("code %d, stderr %q", r.code, r.stderr)
	}
	if _, err := os.Stat(filepath.Join(k.stateDir, "api.sock")); err != nil {
		t.Errorf("the running one's directory was touched: %v", err)
	}
}

func TestReadOnlyStateDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ro")
	if err := os.Mkdir(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	r := runKit(t, "--state-dir="+dir, "true")
	if r.code != 1 || !strings.Contains(r.stderr, "permission denied") {
		t.Errorf("code %d, stderr %q", r.code, r.stderr)
	}
}

// TestForeignStateDir: a directory with somebody's files is refused, and they stay.
func TestForeignStateDir(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	r := runKit(t, "--state-dir="+dir, "true")
	want := fmt.Sprintf("[rootlesskit:parent] error: the state directory %s is not empty, and no RootlessKit has used it (in it: thesis.txt): empty it, or choose another with --state-dir\n", dir)
	if r.code != 1 || r.stderr != want {
		t.Errorf("code %d, stderr %q", r.code, r.stderr)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("in it now: %v, %v", names, err)
	}
}

// TestDanglingLock: a lock that leads nowhere ends the start, at once.
func TestDanglingLock(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/nonexistent/lock", filepath.Join(dir, "lock")); err != nil {
		t.Fatal(err)
	}
	r := runKit(t, "--state-dir="+dir, "true")
	if r.code != 1 || !strings.Contains(r.stderr, "/lock: it is a symbolic link") {
		t.Errorf("code %d, stderr %q", r.code, r.stderr)
	}
}

// TestStateDirReplaced: a command that puts a symlink in the place of the state
// directory has nothing removed but the run's own files.
func TestStateDirReplaced(t *testing.T) {
	for _, flags := range [][]string{{"--net=none"}, {"--net=gvisor-tap-vsock", "--port-driver=builtin"}, {"--net=none", "--detach-netns"}} {
		victim, state := t.TempDir(), filepath.Join(t.TempDir(), "state")
		precious := filepath.Join(victim, "sub", "precious")
		if err := os.MkdirAll(precious, 0o755); err != nil {
			t.Fatal(err)
		}
		script := fmt.Sprintf("mv %[1]s %[1]s.aside && ln -s %[2]s %[1]s", state, victim)
		r := runKit(t, append(flags, "--state-dir="+state, "sh", "-c", script)...)
		if r.code != 0 {
			t.Errorf("%v: code %d: %s", flags, r.code, r.stderr)
		}
		if _, err := os.Stat(precious); err != nil {
			t.Errorf("%v: what the symlink leads to was removed: %v", flags, err)
		}
		if names, err := os.ReadDir(state + ".aside"); err != nil || len(names) != 0 {
			t.Errorf("%v: left of the run: %v, %v", flags, names, err)
		}
	}
}

// TestStateDirIsGone: a command that succeeded has succeeded, whatever became
// of the state directory.
func TestStateDirIsGone(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	if r := runKit(t, "--net=none", "--state-dir="+state, "rm", "-r", state); r.code != 0 {
		t.Errorf("code %d: %s", r.code, r.stderr)
	}
	if r := runKit(t, "--net=none", "--state-dir="+state, "sh", "-c", "chmod 0500 "+filepath.Dir(state)); r.code != 0 || !strings.Contains(r.stderr, "part of the state directory could not be removed") {
		t.Errorf("code %d: %s", r.code, r.stderr)
	}
	if err := os.Chmod(filepath.Dir(state), 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestStateDirOfSubordinateUser: what a subordinate user of the command's has in
// the state directory is removed at the end or, where the child was killed, at
// the next start.
func TestStateDirOfSubordinateUser(t *testing.T) {
	const leave = `mkdir -p "$ROOTLESSKIT_STATE_DIR/top/sub" && touch "$ROOTLESSKIT_STATE_DIR/top/sub/file" &&
		chown -R 1:1 "$ROOTLESSKIT_STATE_DIR/top/sub" && chmod 0700 "$ROOTLESSKIT_STATE_DIR/top/sub"`
	for _, flags := range [][]string{{"--net=none"}, {"--net=none", "--detach-netns"}, {"--pidns"}, {"--net=gvisor-tap-vsock", "--copy-up=/etc"}} {
		k := newKit(t, append(flags, "sh", "-c", leave+"; echo ready; exec sleep 8641")...)
		flags = append(flags, "--state-dir="+k.stateDir)
		gone := func(when string, r result) {
			if r.code != 0 || strings.Contains(r.stderr, "left of the state directory") {
				t.Errorf("%v: %s: code %d: %s", flags, when, r.code, r.stderr)
			}
			if _, err := os.Lstat(k.stateDir); !os.IsNotExist(err) {
				t.Errorf("%v: %s: the state directory is left: %v", flags, when, err)
			}
		}
		gone("the end", runKit(t, append(flags, "sh", "-c", leave)...))

		k.start(t)
		poll(t, "the command", func() bool { return strings.Contains(k.output.String(), "ready") })
		pid, err := strconv.Atoi(k.childPID(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-k.ended
		if err := os.RemoveAll(filepath.Join(k.stateDir, "top")); err == nil {
			t.Fatalf("%v: an ordinary user can remove it: nothing is tested", flags)
		}
		gone("the start after a kill", runKit(t, append(flags, "true")...))
	}
}

// TestKilledRunsTemporaryDir: the next run removes what a killed one left.
func TestKilledRunsTemporaryDir(t *testing.T) {
	base := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", base)
	k := newKit(t, "--net=none", "sh", "-c", "echo ready; exec sleep 8640")
	k.Args = append(k.Args[:1:1], k.Args[2:]...) // no --state-dir
	k.start(t)
	poll(t, "the command", func() bool { return strings.Contains(k.output.String(), "ready") })
	if err := k.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-k.ended
	if names, err := os.ReadDir(base); err != nil || len(names) != 1 {
		t.Fatalf("the killed run left %v, %v", names, err)
	}
	if r := runKit(t, "--net=none", "true"); r.code != 0 {
		t.Errorf("code %d: %s", r.code, r.stderr)
	}
	if names, err := os.ReadDir(base); err != nil || len(names) != 0 {
		t.Errorf("left: %v, %v", names, err)
	}
}

// TestRestartAfterKill: a start right after the kill of the run before does not
// fail, however long the kernel takes to close what that had open.
func TestRestartAfterKill(t *testing.T) {
	for range 10 {
		k := startKit(t, "--net=gvisor-tap-vsock", "sleep", "8640")
		if err := k.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if r := runKit(t, "--state-dir="+k.stateDir, "--net=gvisor-tap-vsock", "true"); r.code != 0 {
			t.Fatalf("code %d: %s", r.code, r.stderr)
		}
	}
}

// TestLockAfterKill: where the launcher is killed alone, its directory is free no sooner
// than nothing of the run is left, so that the next one does not meet it.
func TestLockAfterKill(t *testing.T) {
	for _, flags := range [][]string{{"--net=none"}, {"--net=gvisor-tap-vsock", "--port-driver=bypass4netns", "--disable-host-loopback"}} {
		k := startKit(t, append(flags, "sleep", "8640")...)
		var child int
		if _, err := fmt.Sscan(k.childPID(t), &child); err != nil {
			t.Fatal(err)
		}
		tree := treeOf(child)
		lock, err := os.Open(filepath.Join(k.stateDir, "lock"))
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Close()
		free := func() bool { return unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil }
		stop(t, child) // so that it kills nothing yet
		if err := k.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		poll(t, "the end of the launcher", func() bool { return unix.Kill(k.Process.Pid, 0) != nil })
		if free() {
			t.Errorf("%v: the directory is free, and the run's processes %v are there", flags, tree)
		}
		if err := unix.Kill(child, unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
		poll(t, "the lock", free)
		for _, pid := range tree {
			if err := unix.Kill(pid, 0); pid != child && err == nil {
				t.Errorf("%v: the directory is free, and process %d of its run is there", flags, pid)
			}
		}
	}
}
