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

	"rootlesskit/internal/nstest"
)

// start starts the launcher in the background and waits until the command runs.
// It is ended with the test.
func (s *subject) start(t *testing.T, flags ...string) *exec.Cmd {
	t.Helper()
	return s.startCommand(t, flags, "sh", "-c", `touch "$0/ready"; exec sleep 600`, s.dir)
}

// startCommand is start with a command that makes $DIR/ready when it runs. The
// original does not start at the first attempt every time.
func (s *subject) startCommand(t *testing.T, flags []string, command ...string) *exec.Cmd {
	t.Helper()
	for range s.attempts() {
		os.RemoveAll(s.stateDir)
		cmd := s.command(t, append(append([]string{"--state-dir=" + s.stateDir}, flags...), command...)...)
		if ended := s.launch(t, cmd); s.runs(t, ended) {
			return cmd
		}
	}
	t.Fatalf("%s %v does not start: %s", s.name, flags, s.output())
	return nil
}

// attempts is how often a run is tried: the original looks into its namespaces
// too early now and then, and fails.
func (s *subject) attempts() int { return map[string]int{"upstream": 20, "here": 1}[s.name] }

// launch starts the launcher; the channel is closed at its end, whatever ends it.
func (s *subject) launch(t *testing.T, cmd *exec.Cmd) (ended chan struct{}) {
	t.Helper()
	output, err := os.Create(filepath.Join(s.dir, "output"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = output, output
	err = cmd.Start()
	output.Close()
	if err != nil {
		t.Fatal(err)
	}
	ended = make(chan struct{})
	s.ended = ended
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() { s.stop(cmd) })
	return ended
}

// runs waits until the command runs. It does not where the launcher ended before.
func (s *subject) runs(t *testing.T, ended chan struct{}) (ok bool) {
	t.Helper()
	s.await(t, "the command", func() bool {
		if _, err := os.Stat(filepath.Join(s.dir, "ready")); err == nil {
			ok = true
			return true
		}
		select {
		case <-ended:
			return true
		default:
			return false
		}
	})
	return ok
}

// stop ends a run as its users do, and waits until it has ended.
func (s *subject) stop(cmd *exec.Cmd) {
	_ = cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	<-s.ended
	kill.Stop()
}

func (s *subject) socket() string { return filepath.Join(s.stateDir, "api.sock") }

func (s *subject) output() string {
	b, _ := os.ReadFile(filepath.Join(s.dir, "output"))
	return string(b)
}

func (s *subject) await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("%s: still waiting for %s: %s", s.name, what, s.output())
}

func (s *subject) childPID(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.stateDir, "child_pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(b))
	if err != nil {
		t.Fatalf("%s: child_pid holds %q", s.name, b)
	}
	return pid
}

// ctl runs rootlessctl.
func (s *subject) ctl(t *testing.T, args ...string) outcome {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), s.bin("rootlessctl"), args...)
	cmd.Dir, cmd.Env = s.dir, s.environ()
	return finish(t, cmd)
}

// namePorts finds free ports, and has the report call them by names. What it
// returns puts them in the names' place.
func (s *subject) namePorts(t *testing.T, names ...string) *strings.Replacer {
	t.Helper()
	var back []string
	for _, name := range names {
		port := strconv.Itoa(nstest.FreePort(t))
		s.replace = append(s.replace, port, name)
		back = append(back, name, port)
	}
	return strings.NewReplacer(back...)
}

// nameChild has the report call the child's process by a name.
func (s *subject) nameChild(t *testing.T) {
	t.Helper()
	s.replace = append([]string{strconv.Itoa(s.childPID(t)), "$CHILD"}, s.replace...)
}

// pairs are the drivers, and the flags for them.
var pairs = []string{
	"--net=none --port-driver=builtin",
	"--net=gvisor-tap-vsock --port-driver=builtin",
	"--net=gvisor-tap-vsock --port-driver=gvisor-tap-vsock",
	"--net=slirp4netns --port-driver=builtin",
	"--net=slirp4netns --port-driver=slirp4netns",
	"--net=pasta --port-driver=pesto",
	"--net=pasta --port-driver=implicit",
	"--net=host", "--net=none", "--net=gvisor-tap-vsock", "--net=slirp4netns", "--net=pasta",
}

// forPairs asks of each pair of drivers, attached and detached.
func forPairs(t *testing.T, ask func(t *testing.T, s *subject, flags []string)) {
	for _, pair := range pairs {
		for _, detach := range []string{"", " --detach-netns"} {
			t.Run(pair+detach, func(t *testing.T) {
				t.Parallel()
				compare(t, func(t *testing.T, s *subject) { ask(t, s, strings.Fields(pair+detach)) })
			})
		}
	}
}

// TestStateDirectory compares the files, the processes and what their environment
// tells others while a command runs.
func TestStateDirectory(t *testing.T) {
	forPairs(t, func(t *testing.T, s *subject, flags []string) {
		cmd := s.start(t, flags...)
		s.sayDirectory("state", s.stateDir)
		child := s.childPID(t)
		environ, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", child))
		for _, entry := range strings.Split(string(environ), "\x00") {
			if name, value, found := strings.Cut(entry, "="); found && strings.HasPrefix(name, "ROOTLESSKIT_") {
				s.say("child's environment."+name, value)
			}
		}
		for _, name := range []string{"user", "mnt", "net", "pid", "pid_for_children", "ipc", "uts", "cgroup"} {
			link, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", child, name))
			s.saidf("child's namespace."+name, "%v", strings.Contains(callersNamespaces(), link))
		}
		for _, name := range []string{"comm", "uid_map", "gid_map", "oom_score_adj"} {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", child, name))
			s.say("child's "+name, string(b))
		}
		parent, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child))
		s.saidf("the launcher is the child's parent", "%v", strings.Contains(string(parent), fmt.Sprintf(" %d ", cmd.Process.Pid)))
		s.say("directory is locked", lockedText(s.stateDir))
		s.say("file is locked", lockedText(filepath.Join(s.stateDir, "lock")))
		s.stop(cmd)
		s.saidf("code after SIGTERM", "%d", cmd.ProcessState.ExitCode())
		_, err := os.Stat(s.stateDir)
		s.saidf("the directory is removed", "%v", os.IsNotExist(err))
	})
}

// sayDirectory reports files with modes and owners; those that begin with a dot are an
// implementation's own.
func (s *subject) sayDirectory(key, dir string) {
	_ = filepath.Walk(dir, func(name string, info os.FileInfo, err error) error {
		if err != nil {
			s.say(key+"."+name, err.Error())
			return nil
		}
		stat := info.Sys().(*syscall.Stat_t)
		s.saidf(key+"."+name, "%v %d:%d", info.Mode(), stat.Uid, stat.Gid)
		if name := info.Name(); name == "resolv.conf" || name == "hosts" {
			b, _ := os.ReadFile(filepath.Join(dir, name))
			s.say(key+".content of "+name, string(b))
		}
		return nil
	})
}

// lockedText says which locks a second program gets.
func lockedText(name string) string {
	f, err := os.Open(name)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	shared := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	exclusive := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	return fmt.Sprint("shared: ", shared, ", exclusive: ", exclusive)
}
