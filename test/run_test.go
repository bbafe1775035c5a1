package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/nstest"
)

// errorLine is the line of the launcher's error.
func errorLine(stderr string) string {
	for line := range strings.Lines(stderr) {
		if strings.HasPrefix(line, "[rootlesskit:parent] error: ") {
			return strings.TrimSuffix(line, "\n")
		}
	}
	return ""
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return lines[len(lines)-1]
}

func TestExitCodes(t *testing.T) {
	for _, tt := range []struct {
		command []string
		code    int
		stderr  string
	}{
		{[]string{"true"}, 0, ""},
		{[]string{"sh", "-c", "exit 3"}, 3, "[rootlesskit:child ] error: command [sh -c exit 3] exited: exit status 3\n[rootlesskit:parent] error: child exited: exit status 3\n"},
		{[]string{"sh", "-c", "kill -9 $$"}, 255, "[rootlesskit:child ] error: command [sh -c kill -9 $$] exited: signal: killed\n[rootlesskit:parent] error: child exited: exit status 255\n"},
		{[]string{"nosuchcmd"}, 1, "[rootlesskit:child ] error: command [nosuchcmd] exited: exec: \"nosuchcmd\": executable file not found in $PATH\n[rootlesskit:parent] error: child exited: exit status 1\n"},
	} {
		for _, flags := range [][]string{nil, {"--net=none"}, {"--pidns"}, {"--pidns", "--reaper=false"}, {"--net=none", "--detach-netns"}} {
			r := runKit(t, append(flags, tt.command...)...)
			if r.code != tt.code || r.stderr != tt.stderr {
				t.Errorf("%v %v: code %d, stderr %q", flags, tt.command, r.code, r.stderr)
			}
		}
	}
}

func TestWhatTheCommandSees(t *testing.T) {
	script := `
echo uid=$(id -u) gid=$(id -g) groups=$(awk '/^Groups/{print NF-1}' /proc/self/status)
grep -E '^Cap(Inh|Amb|Eff)' /proc/self/status
echo euid=$ROOTLESSKIT_PARENT_EUID egid=$ROOTLESSKIT_PARENT_EGID
umask; pwd
ls $ROOTLESSKIT_STATE_DIR | tr '\n' ' '
`
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), bin("rootlesskit"), "--net=none", "sh", "-c", script)
	cmd.Dir = dir
	old := syscall.Umask(0o027)
	r := runCmd(t, cmd)
	syscall.Umask(old)
	for _, want := range []string{
		fmt.Sprintf("uid=0 gid=0 groups=%d\n", len(groups)),
		"CapInh:\t0000000000000000\n", "CapAmb:\t0000000000000000\n",
		fmt.Sprintf("euid=%d egid=%d\n", os.Getuid(), os.Getgid()),
		"0027\n" + dir + "\n",
		"api.sock child_pid lock ",
	} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("no %q in %q (stderr %q)", want, r.stdout, r.stderr)
		}
	}
	if strings.Contains(r.stdout, "CapEff:\t0000000000000000") {
		t.Error("the command has no capabilities")
	}
}

// TestInheritedDescriptors: those of the caller arrive, ours do not.
func TestInheritedDescriptors(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.CommandContext(t.Context(), bin("rootlesskit"), "--net=none", "sh", "-c", "echo written >&4; ls /proc/self/fd")
	cmd.ExtraFiles = []*os.File{nil, f} // descriptor 4
	r := runCmd(t, cmd)
	if got := strings.Fields(r.stdout); strings.Join(got, " ") != "0 1 2 3 4" { // 3 is ls's own
		t.Errorf("descriptors of the command: %v", got)
	}
	if b, _ := os.ReadFile(f.Name()); string(b) != "written\n" {
		t.Errorf("written through the inherited descriptor: %q", b)
	}
}

// TestKilledParent: nothing outlives a SIGKILL, and the next run starts in
// what it left.
func TestKilledParent(t *testing.T) {
	for _, flags := range [][]string{{"--net=none"}, {"--net=none", "--pidns"}, {"--net=none", "--detach-netns"}} {
		marker := fmt.Sprintf("8%d", os.Getpid()*10+len(flags)+len(flags[len(flags)-1]))
		k := startKit(t, append(flags, "sh", "-c", "setsid sleep "+marker+" & (setsid sleep "+marker+" &) ; sleep "+marker)...)
		poll(t, "the command's processes", func() bool { return len(processesWith("sleep\x00"+marker)) == 3 })
		if err := k.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		poll(t, "the end of all", func() bool { return len(processesWith(marker)) == 0 })
		r := runKit(t, "--state-dir="+k.stateDir, "true")
		if r.code != 0 {
			t.Errorf("%v: the next run on the state directory: code %d: %s", flags, r.code, r.stderr)
		}
	}
}

// TestKilledParentEndsPIDNamespace: the kernel ends the child with its parent,
// however busy the machine is.
func TestKilledParentEndsPIDNamespace(t *testing.T) {
	k := startKit(t, "--net=none", "--pidns", "sleep", "8640")
	child, err := strconv.Atoi(k.childPID(t))
	if err != nil {
		t.Fatal(err)
	}
	// Stopped, it can do nothing about the parent's death itself.
	stop(t, child)
	if err := k.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	poll(t, "the end of the child", func() bool { return commandLine(child) == "" })
}

// TestDescriptorAboveLimit: what was opened before the limit was lowered is
// passed on, as is what lies below.
func TestDescriptorAboveLimit(t *testing.T) {
	for _, limit := range []string{"64", "100", "250"} {
		r := runCmd(t, exec.CommandContext(t.Context(), "bash", "-c",
			`exec 5<<<five 251<<<high; ulimit -n "$1"; exec "$2" --net=none sh -c 'cat <&5; cat /proc/self/fd/251; ls /proc/self/fd | tr "\n" " "'`,
			"bash", limit, bin("rootlesskit")))
		if r.code != 0 || !strings.HasPrefix(r.stdout, "five\nhigh\n0 1 2 251 3 5 ") {
			t.Errorf("limit %s: code %d, %q, %s", limit, r.code, r.stdout, r.stderr)
		}
	}
}

func TestKilledChild(t *testing.T) {
	marker := fmt.Sprintf("9%d", os.Getpid())
	k := startKit(t, "--net=none", "sh", "-c", "setsid sleep "+marker+" & sleep "+marker)
	poll(t, "the command's processes", func() bool { return len(processesWith("sleep\x00"+marker)) == 2 })
	pid, err := strconv.Atoi(k.childPID(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	poll(t, "the end of all", func() bool { return len(processesWith(marker)) == 0 })
}

// TestSignals: each arrives once, whoever sends it and however.
func TestSignals(t *testing.T) {
	for _, flags := range [][]string{{"--net=none"}, {"--pidns"}, {"--pidns", "--reaper=false"}} {
		k := startKit(t, append(flags, "sh", "-c", `
for s in HUP INT TERM USR1 USR2 WINCH TSTP ABRT SYS TRAP VTALRM; do trap "echo got $s" $s; done
echo ready
while :; do sleep 0.01; done`)...)
		poll(t, "ready", func() bool { return strings.Contains(k.output.String(), "ready") })
		for name, sig := range map[string]unix.Signal{
			"HUP": unix.SIGHUP, "INT": unix.SIGINT, "TERM": unix.SIGTERM, "USR1": unix.SIGUSR1,
			"USR2": unix.SIGUSR2, "WINCH": unix.SIGWINCH, "TSTP": unix.SIGTSTP,
			"ABRT": unix.SIGABRT, "SYS": unix.SIGSYS, "TRAP": unix.SIGTRAP, "VTALRM": unix.SIGVTALRM,
		} {
			if err := unix.Kill(k.Process.Pid, sig); err != nil {
				t.Fatal(err)
			}
			poll(t, name, func() bool { return strings.Contains(k.output.String(), "got "+name+"\n") })
		}
		if n := strings.Count(k.output.String(), "got"); n != 11 {
			t.Errorf("%v: %d signals arrived: %s", flags, n, k.output)
		}
	}
}

// TestIgnoredSignals: what the caller ignores (nohup(1)) the command ignores.
func TestIgnoredSignals(t *testing.T) {
	const ignoring = `trap "" HUP INT; exec "$@"`
	grep := []string{"grep", "^SigIgn:", "/proc/self/status"}
	without := runCmd(t, exec.CommandContext(t.Context(), "sh", append([]string{"-c", ignoring, "sh"}, grep...)...))
	if !strings.HasSuffix(without.stdout, "3\n") {
		t.Fatalf("without the launcher: %q, %s", without.stdout, without.stderr)
	}
	for _, flags := range [][]string{nil, {"--pidns"}} {
		command := append(append([]string{"-c", ignoring, "sh", bin("rootlesskit")}, flags...), grep...)
		r := runCmd(t, exec.CommandContext(t.Context(), "sh", command...))
		if r.stdout != without.stdout {
			t.Errorf("%v: got %q, want %q: %s", flags, r.stdout, without.stdout, r.stderr)
		}
	}
}

// TestOrphansAreReaped: they were there, and of all below the launcher only the child
// and the command are left, zombies counted.
func TestOrphansAreReaped(t *testing.T) {
	for _, flags := range [][]string{nil, {"--pidns"}} {
		began := filepath.Join(t.TempDir(), "began")
		k := startKit(t, append(flags, "sh", "-c", `
for i in 1 2 3 4 5; do (sh -c "echo >>$0; exec sleep 0.05" &); done
exec sleep 60`, began)...)
		poll(t, "five orphans", func() bool {
			b, _ := os.ReadFile(began)
			return len(b) == 5
		})
		poll(t, "the orphans' end", func() bool { return len(nstest.Descendants(k.Process.Pid)) == 2 })
	}
}

// TestFullStateDir: a state directory without room, for each file in turn, ends
// the run with the reason and leaves nothing.
func TestFullStateDir(t *testing.T) {
	dir := t.TempDir()
	for inodes := 1; ; inodes++ {
		if inodes > 20 {
			t.Fatal("no number of files is enough")
		}
		script := fmt.Sprintf(`mount -t tmpfs -o nr_inodes=%d none %s && "$@"; code=$?; ls -A %s; exit $code`, inodes, dir, dir)
		r := runCmd(t, exec.CommandContext(t.Context(), "unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh",
			bin("rootlesskit"), "--state-dir="+dir+"/state", "--net=gvisor-tap-vsock", "--disable-host-loopback", "--detach-netns", "echo", "ran"))
		if r.code == 0 {
			if r.stdout != "ran\n" || inodes < 5 { // its root, the directory, netns, child_pid, api.sock, ...
				t.Errorf("%d files are enough: %q", inodes, r.stdout)
			}
			return
		}
		if r.code != 1 || r.stdout != "" || !strings.Contains(r.stderr, "no space left on device") {
			t.Errorf("%d files: code %d, %q, %s", inodes, r.code, r.stdout, r.stderr)
		}
	}
}
