// Package test runs the built programs as their users do: real namespaces,
// real servers, faults.
package test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/launch"
	"rootlesskit/internal/nstest"
)

// binEnv tells the tests, which run as another user, where the binaries are.
const binEnv = "ROOTLESSKIT_TEST_BIN"

// shipTags is SHIP_TAGS of the Makefile.
const shipTags = "urfave_cli_no_template,nethttpomithttp2"

func TestMain(m *testing.M) {
	if os.Getenv(binEnv) == "" {
		dir, err := buildBinaries()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Setenv(binEnv, dir)
		os.Setenv("AWAIT_LINKS", nstest.AwaitLinks) // for scripts
		nstest.AtExit(func() { os.RemoveAll(dir) })
		delegateCgroup()
		if os.Geteuid() == 0 {
			if err := makeGroupFile(dir); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
	}
	// What the tests were started with must not look like a leak.
	if _, err := launch.InheritedFDs(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	nstest.Main(m)
}

// buildBinaries builds what is tested the way it is shipped, where every user
// can execute it, and copies the files that tests use there: the sources of root may
// be root's to read.
func buildBinaries() (string, error) {
	dir, err := os.MkdirTemp("", "rootlesskit-test-bin")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	if err := os.CopyFS(filepath.Join(dir, "testdata"), os.DirFS("testdata")); err != nil {
		return "", err
	}
	for _, build := range []struct {
		env  string
		args []string
	}{
		{"CGO_ENABLED=0", []string{"-o", dir + "/", "../cmd/...", "./testdata/tool", "./testdata/docker-proxy"}},
		{"GOARCH=386", []string{"-o", dir + "/tool386", "./testdata/tool"}},
	} {
		cmd := exec.Command("go", append([]string{"build", "-trimpath", "-buildvcs=false", "-tags=" + shipTags}, build.args...)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", build.env)
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("building the programs: %w\n%s", err, out)
		}
	}
	return dir, nil
}

func bin(name string) string { return filepath.Join(os.Getenv(binEnv), name) }

// result is what a finished program left.
type result struct {
	stdout, stderr string
	code           int
}

// runKit runs rootlesskit to its end.
func runKit(t *testing.T, args ...string) result {
	t.Helper()
	return runCmd(t, exec.CommandContext(t.Context(), bin("rootlesskit"), args...))
}

func runCmd(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = waitLimit
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// kit is a rootlesskit that runs in the background.
type kit struct {
	*exec.Cmd
	stateDir string
	output   *nstest.Buffer
	ended    chan struct{}
}

// startKit starts rootlesskit with a state directory of the test's and waits
// until its API answers. It is killed with the test.
func startKit(t *testing.T, args ...string) *kit {
	t.Helper()
	k := newKit(t, args...)
	k.start(t)
	k.awaitAPI(t)
	return k
}

// newKit is startKit without a start.
func newKit(t *testing.T, args ...string) *kit {
	t.Helper()
	k := &kit{stateDir: filepath.Join(t.TempDir(), "state"), output: &nstest.Buffer{}, ended: make(chan struct{})}
	k.Cmd = exec.Command(bin("rootlesskit"), append([]string{"--state-dir=" + k.stateDir}, args...)...)
	k.Stdout, k.Stderr = k.output, k.output
	k.WaitDelay = 5 * time.Second
	return k
}

// under has another program start rootlesskit.
func (k *kit) under(program string, args ...string) *kit {
	path, err := exec.LookPath(program)
	if err != nil {
		k.Err = err
		return k
	}
	k.Path, k.Args = path, append(append([]string{program}, args...), k.Args...)
	return k
}

// start starts rootlesskit, and ends it with the test. What it said is logged where the
// test fails.
func (k *kit) start(t *testing.T) {
	t.Helper()
	if err := k.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = k.Wait(); close(k.ended) }()
	t.Cleanup(func() { // after the end, below
		if t.Failed() {
			t.Logf("%v: %s", k.Args, k.output)
		}
	})
	t.Cleanup(func() {
		select {
		case <-k.ended:
			return // its number may be another's by now
		default:
		}
		tree := openTree(k.Process.Pid)
		_ = k.Process.Kill()
		<-k.ended
		tree.end(t)
	})
}

// tree is the processes of a run: pidfds by PIDs.
type tree map[int]int

func openTree(pid int) tree {
	opened := tree{}
	for _, pid := range treeOf(pid) {
		if pidfd, err := unix.PidfdOpen(pid, 0); err == nil {
			opened[pid] = pidfd
		}
	}
	return opened
}

// end waits until all have ended, after the launcher. One that was stopped goes on
// before: it could end nothing below it.
func (opened tree) end(t *testing.T) {
	for _, pidfd := range opened {
		_ = unix.PidfdSendSignal(pidfd, unix.SIGCONT, nil, 0)
		defer unix.Close(pidfd)
	}
	for pid, pidfd := range opened {
		poll(t, fmt.Sprintf("the end of process %d of a run whose launcher was killed", pid), func() bool {
			fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
			n, err := unix.Poll(fds, 0)
			return err == nil && n == 1
		})
	}
}

// stop stops a process with all its threads, until resume is called or the test ends.
func stop(t *testing.T, pid int) (resume func()) {
	t.Helper()
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	resume = func() { _ = unix.PidfdSendSignal(pidfd, unix.SIGCONT, nil, 0) }
	t.Cleanup(func() {
		resume()
		unix.Close(pidfd)
	})
	if err := unix.PidfdSendSignal(pidfd, unix.SIGSTOP, nil, 0); err != nil {
		t.Fatal(err)
	}
	poll(t, fmt.Sprintf("process %d to be stopped", pid), func() bool { return isStopped(pid) })
	return resume
}

// isStopped reports whether all threads of a process are stopped. One of them takes the
// signal, and the others go on until they notice.
func isStopped(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(threads) == 0 {
		return false
	}
	for _, path := range threads {
		stat, err := os.ReadFile(path)
		if err == nil && !strings.Contains(string(stat), ") T ") {
			return false
		}
	}
	return true
}

func (k *kit) awaitAPI(t *testing.T) {
	t.Helper()
	poll(t, "api.sock", func() bool {
		select {
		case <-k.ended:
			t.Fatalf("rootlesskit ended: %s", k.output)
		default:
		}
		_, err := os.Stat(filepath.Join(k.stateDir, "api.sock"))
		return err == nil
	})
}

// await waits for the end and returns the exit code.
func (k *kit) await(t *testing.T) int {
	t.Helper()
	return k.awaitFor(t, waitLimit)
}

// awaitFor is await with a limit of its own.
func (k *kit) awaitFor(t *testing.T, limit time.Duration) int {
	t.Helper()
	select {
	case <-k.ended:
	case <-time.After(limit):
		t.Fatalf("it does not end: %s", k.output)
	}
	return k.ProcessState.ExitCode()
}

func (k *kit) terminate(t *testing.T) {
	t.Helper()
	if err := k.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}

// ctl runs rootlessctl against the run.
func (k *kit) ctl(t *testing.T, args ...string) result {
	t.Helper()
	args = append([]string{"--socket=" + filepath.Join(k.stateDir, "api.sock")}, args...)
	return runCmd(t, exec.CommandContext(t.Context(), bin("rootlessctl"), args...))
}

// mustCtl is ctl for a call that has to succeed; it returns what was printed.
func (k *kit) mustCtl(t *testing.T, args ...string) string {
	t.Helper()
	r := k.ctl(t, args...)
	if r.code != 0 {
		t.Fatalf("rootlessctl %v: code %d: %s\nrootlesskit: %s", args, r.code, r.stderr, k.output)
	}
	return r.stdout
}

func (k *kit) childPID(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(k.stateDir, "child_pid"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// waitLimit ends a wait for what never comes. It decides no test on a machine
// that is only slow.
const waitLimit = time.Minute

// poll waits until a condition holds.
func poll(t *testing.T, what string, holds func() bool) {
	t.Helper()
	pollFor(t, waitLimit, what, holds)
}

// pollFor is poll with a limit of its own.
func pollFor(t *testing.T, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("still waiting for %s after %s", what, limit)
}

// processesWith lists the processes whose command line holds a string.
func processesWith(s string) []string {
	var found []string
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err == nil && strings.Contains(string(b), s) {
			found = append(found, f+": "+strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	return found
}
