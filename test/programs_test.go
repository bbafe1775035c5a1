package test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"rootlesskit/internal/nstest"
)

// TestExecutedPrograms: what a system call can do needs no program. A run has
// all it needs where only the tools for id maps and the command are on PATH.
func TestExecutedPrograms(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"newuidmap", "newgidmap", "getsubids", "true"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), bin("rootlesskit"), "--net=gvisor-tap-vsock", "--disable-host-loopback", "--copy-up=/etc",
		"--port-driver=builtin", "-p", fmt.Sprintf("127.0.0.1:%d:80/tcp", nstest.FreePort(t)), "--pidns", "true")
	cmd.Env = append(os.Environ(), "PATH="+dir)
	if r := runCmd(t, cmd); r.code != 0 || r.stderr != "" {
		t.Errorf("code %d: %s", r.code, r.stderr)
	}
}

// TestEnvironOfTheChild: clients read the variables from /proc.
func TestEnvironOfTheChild(t *testing.T) {
	k := startKit(t, "--net=none", "sleep", "infinity")
	b, err := os.ReadFile("/proc/" + k.childPID(t) + "/environ")
	if err != nil {
		t.Fatal(err)
	}
	env := "\x00" + string(b)
	for _, want := range []string{
		"ROOTLESSKIT_STATE_DIR=" + k.stateDir,
		fmt.Sprintf("ROOTLESSKIT_PARENT_EUID=%d", os.Getuid()),
		fmt.Sprintf("ROOTLESSKIT_PARENT_EGID=%d", os.Getgid()),
	} {
		if !strings.Contains(env, "\x00"+want+"\x00") {
			t.Errorf("no %s in %q", want, env)
		}
	}
}

// TestSocketActivation: descriptors of systemd reach the command, and
// LISTEN_PID names it.
func TestSocketActivation(t *testing.T) {
	fds := make([]*os.File, 3)
	for i := range fds {
		f, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fds[i] = f
	}
	const script = `echo "$$ $LISTEN_PID $LISTEN_FDS $LISTEN_FDNAMES"; exec ls /proc/self/fd`
	for _, matched := range []bool{true, false} {
		pid := "1"
		if matched {
			pid = "$$" // of the shell that becomes rootlesskit
		}
		cmd := exec.CommandContext(t.Context(), "sh", "-c",
			fmt.Sprintf(`LISTEN_PID=%s LISTEN_FDS=3 LISTEN_FDNAMES=a:b:c exec %s --net=none sh -c '%s'`, pid, bin("rootlesskit"), script))
		cmd.ExtraFiles = fds
		r := runCmd(t, cmd)
		var own, listen, count, names string
		first, second, _ := strings.Cut(r.stdout, "\n")
		if _, err := fmt.Sscan(first, &own, &listen, &count, &names); err != nil {
			t.Fatalf("%q: %v, stderr %q", r.stdout, err, r.stderr)
		}
		if matched && own != listen || !matched && listen != "1" || count != "3" || names != "a:b:c" {
			t.Errorf("matched=%v: the command sees %q", matched, first)
		}
		if strings.Join(strings.Fields(second), " ") != "0 1 2 3 4 5 6" { // 6 is ls's own
			t.Errorf("matched=%v: descriptors %q", matched, second)
		}
	}
}

// TestInfoJSON holds the fields that clients read.
func TestInfoJSON(t *testing.T) {
	k := startKit(t, "--net=none", "--port-driver=builtin", "sleep", "infinity")
	var info map[string]any
	if err := json.Unmarshal([]byte(k.mustCtl(t, "info", "--json")), &info); err != nil {
		t.Fatal(err)
	}
	net, _ := info["networkDriver"].(map[string]any)
	ports, _ := info["portDriver"].(map[string]any)
	if info["apiVersion"] != "1.2.0" || info["version"] != "3.4.0-dev" || info["stateDir"] != k.stateDir ||
		fmt.Sprint(info["childPID"]) != k.childPID(t) ||
		net["driver"] != "none" || ports["driver"] != "builtin" {
		t.Errorf("info: %v", info)
	}
	if st, err := os.Stat(filepath.Join(k.stateDir, "api.sock")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("api.sock: %v %v", st.Mode(), err)
	}
}
