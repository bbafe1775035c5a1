package launch

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// holdLock makes a state directory whose lock another open file holds, in the
// name of a process.
func holdLock(t *testing.T, pid string) (dir string, release func()) {
	t.Helper()
	dir = t.TempDir()
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(pid); err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return dir, func() { f.Close() }
}

// zombie is a process that was killed and not reaped.
func zombie(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(cmd.Process.Pid)
}

// TestLockOfTheKilled: the lock of a process that was killed is waited for, and
// one line of the log says so when it takes a while.
func TestLockOfTheKilled(t *testing.T) {
	dir, release := holdLock(t, zombie(t))
	var out bytes.Buffer
	noticed := make(chan struct{})
	log := slog.New(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
		defer close(noticed) // a second line would panic
		return out.Write(p)
	}), nil))
	go func() {
		<-noticed
		release()
	}()
	s, err := openStateDir(t.Context(), dir, log)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	<-noticed
	if want := "waiting for another RootlessKit"; !strings.Contains(out.String(), want) {
		t.Errorf("the log says %q", &out)
	}
	if b, err := os.ReadFile(s.file(lockName)); string(b) != strconv.Itoa(os.Getpid()) || err != nil {
		t.Errorf("the lock names %q, %v", b, err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestLockWaitEnds: a wait ends with the context, and tells its cause.
func TestLockWaitEnds(t *testing.T) {
	dir, _ := holdLock(t, zombie(t))
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("a signal")
	time.AfterFunc(10*lockInterval, func() { cancel(cause) })
	if _, err := openStateDir(ctx, dir, slog.New(slog.DiscardHandler)); !errors.Is(err, cause) {
		t.Errorf("it ends with %v", err)
	}
}

// TestSilentLock: the lock of a program that writes no PID is not waited for.
func TestSilentLock(t *testing.T) {
	for _, content := range []string{"", "-1", "0", "x", strings.Repeat("9", 30)} {
		s := &stateDir{path: t.TempDir()}
		f, err := os.Create(filepath.Join(s.path, lockName))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(content); err != nil {
			t.Fatal(err)
		}
		s.lock = f
		if s.holderIsEnding() {
			t.Errorf("%q: waited for", content)
		}
	}
}
