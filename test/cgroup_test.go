package test

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"rootlesskit/internal/nstest"
)

// cgroupEnv names a cgroup that the test's user has been given, or says why
// there is none.
const cgroupEnv = "ROOTLESSKIT_TEST_CGROUP"

// foreignUnit is a cgroup that the test's user may join, and nothing else, like
// that of a unit without Delegate=.
const foreignUnit = "foreign.service"

// delegateCgroup lets root move the tests into a cgroup of their user's own, as
// systemd does by Delegate=. A process may be moved within it only (cgroups(7),
// "Delegation containment").
func delegateCgroup() {
	dir, err := makeCgroup()
	if err != nil {
		dir = err.Error()
	}
	os.Setenv(cgroupEnv, dir)
}

func makeCgroup() (string, error) {
	if os.Geteuid() != 0 {
		return "", fmt.Errorf("only root can delegate a cgroup")
	}
	u, err := user.Lookup(nstest.TestUser)
	if err != nil {
		return "", err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return "", err
	}
	original, err := ownCgroup()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(original, "rootlesskit-test-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		return "", err
	}
	tests := filepath.Join(dir, "tests")
	foreign := filepath.Join(dir, foreignUnit)
	for _, path := range []string{tests, foreign} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return "", err
		}
	}
	nstest.AtExit(func() {
		_ = os.WriteFile(filepath.Join(original, "cgroup.procs"), []byte("0"), 0) // "0" is the writer
		removeCgroup(dir)
	})
	for _, path := range []string{dir, tests} {
		for _, file := range []string{".", "cgroup.procs", "cgroup.subtree_control"} {
			if err := os.Chown(filepath.Join(path, file), uid, -1); err != nil {
				return "", err
			}
		}
	}
	if err := os.Chown(filepath.Join(foreign, "cgroup.procs"), uid, -1); err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(tests, "cgroup.procs"), []byte("0"), 0)
}

// ownCgroup is the directory of this process's cgroup in the unified hierarchy.
func ownCgroup() (string, error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
				return filepath.Join(root, path), nil
			}
		}
	}
	return "", fmt.Errorf("no cgroup2 is mounted")
}

// removeCgroup removes a cgroup with those below it, where they are empty.
func removeCgroup(dir string) {
	below, _ := filepath.Glob(filepath.Join(dir, "*/cgroup.procs"))
	for _, file := range below {
		removeCgroup(filepath.Dir(file))
	}
	_ = os.Remove(dir)
}

// inCgroup runs a script of sh, with arguments, in a sub-cgroup of the one that the
// user was given.
func inCgroup(t *testing.T, name, script string, args ...string) result {
	t.Helper()
	dir := os.Getenv(cgroupEnv)
	if !filepath.IsAbs(dir) {
		t.Skip("no cgroup to evacuate: ", dir)
	}
	run := filepath.Join(dir, name)
	if err := os.Mkdir(run, 0o755); err == nil {
		defer removeCgroup(run) // where all have ended; else with the tests
	} else if name != foreignUnit {
		t.Fatal(err)
	}
	args = append([]string{"-c", `echo 0 >"$0/cgroup.procs" && ` + script, run}, args...)
	return runCmd(t, exec.CommandContext(t.Context(), "sh", args...))
}

func TestEvacuateCgroup2(t *testing.T) {
	// As in a unit of systemd with Delegate=yes, the processes of the cgroup are
	// rootlesskit's. The command makes cgroups of its own.
	r := inCgroup(t, "run", `umask 077; exec "$@"`,
		bin("rootlesskit"), "--pidns", "--cgroupns", "--evacuate-cgroup2=evac", "sh", "-c", `
		grep 0:: /proc/self/cgroup
		cd /sys/fs/cgroup
		wc -l <cgroup.procs; echo "$(cat cgroup.controllers)"; echo "$(cat cgroup.subtree_control)"
		grep -c . evac/cgroup.procs; stat -c %a evac
		mkdir mine && echo 0 >mine/cgroup.procs && grep 0:: /proc/self/cgroup`)
	lines := strings.Split(r.stdout, "\n")
	if r.code != 0 || len(lines) != 8 || lines[0] != "0::/evac" || lines[1] != "0" || lines[5] != "755" || lines[6] != "0::/mine" {
		t.Fatalf("code %d: %q, stderr %q", r.code, lines, r.stderr)
	}
	controllers, enabled := strings.Fields(lines[2]), strings.Fields(lines[3])
	if !slices.Equal(controllers, enabled) {
		t.Errorf("controllers %v, enabled for sub-cgroups %v", controllers, enabled)
	}
	if n, err := strconv.Atoi(lines[4]); err != nil || n < 3 { // the parent, the child, the command
		t.Errorf("%q processes were evacuated", lines[4])
	}
}

// TestEvacuateForkingCgroup: what is started while the cgroup is evacuated is
// moved as well.
func TestEvacuateForkingCgroup(t *testing.T) {
	for i := range 5 {
		r := inCgroup(t, fmt.Sprint("forks", i), `
			for i in 1 2 3 4; do while :; do (:) & (:) & wait; done & pids="$pids $!"; done
			"$@"; code=$?; kill $pids; wait; exit $code`,
			bin("rootlesskit"), "--pidns", "--cgroupns", "--evacuate-cgroup2=evac", "sh", "-c", "wc -l </sys/fs/cgroup/cgroup.procs")
		if r.code != 0 || r.stdout != "0\n" {
			t.Fatalf("code %d: %q, stderr %q", r.code, r.stdout, r.stderr)
		}
	}
}

// TestEvacuateUndelegatedCgroup: who may not make cgroups is told what to do.
func TestEvacuateUndelegatedCgroup(t *testing.T) {
	r := inCgroup(t, foreignUnit, `exec "$@"`, bin("rootlesskit"), "--pidns", "--cgroupns", "--evacuate-cgroup2=evac", "true")
	const want = "/" + foreignUnit + " is not delegated to this user: set Delegate=yes in " + foreignUnit + ", or start with systemd-run --user --scope --property=Delegate=yes)"
	if r.code != 1 || !strings.Contains(r.stderr, want) || strings.Count(r.stderr, "\n") != 1 {
		t.Errorf("code %d: %s", r.code, r.stderr)
	}
}

// TestEvacuateForeignCgroup: what cannot be done is said.
func TestEvacuateForeignCgroup(t *testing.T) {
	own, err := ownCgroup()
	if err != nil {
		t.Skip(err)
	}
	cmd := exec.CommandContext(t.Context(), bin("rootlesskit"), "--pidns", "--cgroupns", "--evacuate-cgroup2=../../nosuch/evac", "true")
	if r := runCmd(t, cmd); r.code != 1 || !strings.Contains(r.stderr, "evacuat") {
		t.Errorf("in %s: code %d: %s", own, r.code, r.stderr)
	}
}

// TestEvacuationWithoutDelegation: the error says what makes the cgroup the
// user's.
func TestEvacuationWithoutDelegation(t *testing.T) {
	own, err := ownCgroup()
	if err != nil {
		t.Skip("no cgroup v2: ", err)
	}
	script := fmt.Sprintf("mount -t tmpfs none /mnt && mkdir -p /mnt/x && mount --bind -o ro /mnt/x %s; exec %s --pidns --cgroupns --evacuate-cgroup2=x true", own, bin("rootlesskit"))
	r := runCmd(t, exec.CommandContext(t.Context(), "unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script))
	if r.code != 1 || !strings.Contains(r.stderr, `evacuating to cgroup "x": `) {
		t.Errorf("code %d: %s", r.code, r.stderr)
	}
}
