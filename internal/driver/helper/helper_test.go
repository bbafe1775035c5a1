package helper

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"rootlesskit/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// shell describes a helper that is a shell script; it writes to descriptor 3
// when it is ready.
func shell(t *testing.T, script string, args ...string) Config {
	t.Helper()
	return Config{
		Name:    "test-helper",
		Log:     slog.New(slog.NewTextHandler(t.Output(), nil)),
		Version: func() string { return "helper 1.2" },
		Command: func() (*Command, error) {
			ready, theirs, err := os.Pipe()
			return &Command{
				Path: "/bin/sh", Args: append([]string{"-c", script, "-"}, args...),
				Files: []*os.File{theirs}, Ready: ready,
			}, err
		},
	}
}

// start starts a helper that is ended with the test.
func start(t *testing.T, cfg Config) *Program {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p, err := Start(ctx, cfg)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		<-p.Ended()
	})
	return p
}

// printPID has the helper leave its process ID in a file.
const printPID = `echo $$ > $1.new; mv $1.new $1; echo >&3; exec sleep 60`

func readPID(t *testing.T, path string) int {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pid := 0
	for _, c := range strings.TrimSpace(string(b)) {
		pid = pid*10 + int(c-'0')
	}
	return pid
}

// A program that takes long is told of, with its version; it may still come.
func TestSlowStart(t *testing.T) {
	told, log := filepath.Join(t.TempDir(), "told"), &nstest.Buffer{}
	cfg := shell(t, `until [ -e $1 ]; do sleep 0.1; done; echo >&3; exec sleep 60`, told)
	cfg.Log = slog.New(slog.NewTextHandler(log, nil))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for !strings.Contains(log.String(), "is not ready yet") {
			time.Sleep(10 * time.Millisecond)
		}
		_ = os.WriteFile(told, nil, 0o600)
	}()
	start(t, cfg)
	<-ended
	if !strings.Contains(log.String(), "helper 1.2") {
		t.Error("the version is not told")
	}
}

// A program that hangs instead of printing its help is given up.
func TestHangingProbe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hangs")
	if err := os.WriteFile(path, []byte("#!/bin/sh\nexec sleep 60\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Probe(path); err == nil || !strings.Contains(err.Error(), path+" --help did not end within 30s") {
		t.Errorf("error %v", err)
	}
}

func TestRestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	var restored atomic.Int32
	cfg := shell(t, printPID, file)
	cfg.Restore = func(context.Context) error { restored.Add(1); return nil }
	p := start(t, cfg)
	for i := range 3 {
		old := readPID(t, file)
		if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		// A request that meets the dead program is repeated on the next one.
		err := p.Do(t.Context(), func() error {
			if readPID(t, file) == old {
				return errors.New("nobody is there")
			}
			return nil
		})
		if err != nil || restored.Load() != int32(i+1) {
			t.Errorf("after death %d: %v, restored %d times", i, err, restored.Load())
		}
	}
}

// TestDoReportsFailures: an error on a program that lives is the request's own.
func TestDoReportsFailures(t *testing.T) {
	p := start(t, shell(t, `echo >&3; exec sleep 60`))
	want := errors.New("bad request")
	if err := p.Do(t.Context(), func() error { return want }); !errors.Is(err, want) {
		t.Errorf("got %v", err)
	}
}

func TestGivesUp(t *testing.T) {
	p := start(t, shell(t, `echo >&3; echo out; echo it hurts >&2; sleep 0.1; exit 3`))
	if err := p.Wait(); err == nil || err.Error() != "test-helper died 7 times in a row: exit status 3: it hurts" {
		t.Errorf("got %v", err)
	}
	if err := p.Do(t.Context(), func() error { return nil }); !errors.Is(err, ErrEnded) {
		t.Errorf("Do: %v", err)
	}
}

func TestCannotRestore(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	cfg := shell(t, printPID, file)
	cfg.Restore = func(context.Context) error { return errors.New("port 80 is taken") }
	p := start(t, cfg)
	if err := syscall.Kill(readPID(t, file), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err == nil || err.Error() != "test-helper died and was restarted, but its state cannot be restored: port 80 is taken" {
		t.Errorf("got %v", err)
	}
}

func TestEndsWithItsContext(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancel(context.Background())
	p, err := Start(ctx, shell(t, printPID, file))
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := p.Wait(); err != nil {
		t.Errorf("got %v", err)
	}
	if err := syscall.Kill(readPID(t, file), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the helper is left: %v", err)
	}
}

func TestFailedStart(t *testing.T) {
	for script, want := range map[string]string{
		`echo no such option >&2; exit 1`:        "starting test-helper: exit status 1: no such option (helper 1.2)",
		`exec 3>&-; sleep 0.1; echo odd; exit 0`: "starting test-helper: exit status 0 (helper 1.2)",
		`kill -9 $$`:                             "starting test-helper: signal: killed (helper 1.2)",
	} {
		if _, err := Start(t.Context(), shell(t, script)); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", script, err, want)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Start(ctx, shell(t, `exec sleep 60`)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a helper that never is ready: %v", err)
	}
}

func TestProbe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tool")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho '-m, --mtu=MTU  set it'; echo ' --no-map-gw' >&2; exit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	b, err := Probe(path)
	if err != nil {
		t.Fatal(err)
	}
	if !b.Has("--mtu") || !b.Has("--no-map-gw") || b.Has("--no-map") || b.Lacks("--mtu", "--cidr", "--foo") != "--cidr" {
		t.Errorf("options: %v", b.options)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho hello\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Probe(path); err == nil {
		t.Error("a program without options was accepted")
	}
}

func FuzzOutput(f *testing.F) {
	f.Add([]byte("a\nb\n"), []byte("c"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		o := &output{log: slog.New(slog.DiscardHandler)}
		for _, part := range [][]byte{a, b, a} {
			if n, err := o.Write(part); n != len(part) || err != nil {
				t.Fatal(n, err)
			}
		}
		if tail := o.tail(); len(tail) > (maxLines+1)*(maxLine+2) {
			t.Errorf("%d bytes are kept", len(tail))
		}
	})
}

func TestLongOptions(t *testing.T) {
	got := longOptions("usage: x --a-b=N, [--c1]\n -d --- --- --E ----\n  --config-net\tConfigure--")
	want := map[string]bool{"--a-b": true, "--c1": true, "--config-net": true}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
