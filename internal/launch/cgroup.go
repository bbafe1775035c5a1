package launch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// evacuateCgroup2 moves every process of this process's cgroup into a
// sub-cgroup, so that the cgroup can have controllers enabled for its children:
// cgroups(7), "no internal processes" rule.
func evacuateCgroup2(group string) error {
	if group == "" {
		return nil
	}
	own, err := ownCgroup2()
	if err == nil {
		err = evacuate(own, filepath.Join(own, group))
	}
	if err != nil {
		return fmt.Errorf("evacuating to cgroup %q: %w%s", group, err, delegationHint(own, err))
	}
	return nil
}

// evacuate moves processes until none is left, since each may have forked while
// it was moved. The kernel makes the final check: it enables controllers for the
// children of a cgroup only if the cgroup is empty.
func evacuate(own, sub string) error {
	if err := makeCgroup(sub); err != nil {
		return err
	}
	const passes = 1000 // a fork bomb would never end
	for range passes {
		left, err := moveProcesses(own, sub)
		if err == nil && left == 0 {
			err = enableControllers(own)
			if err == nil {
				return nil
			}
		}
		if err != nil && !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return fmt.Errorf("%s still gets new processes after %d passes, or has processes of another PID namespace", own, passes)
}

// makeCgroup makes a cgroup that every user inside may read, whatever the umask is.
func makeCgroup(dir string) error {
	const mode = 0o755
	if err := os.MkdirAll(dir, mode); err != nil {
		return err
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() == mode {
		return err
	}
	return os.Chmod(dir, mode)
}

// moveProcesses moves the processes that are in a cgroup now, and returns their
// number.
func moveProcesses(from, to string) (int, error) {
	procs, err := os.ReadFile(filepath.Join(from, "cgroup.procs"))
	if err != nil {
		return 0, err
	}
	pids := strings.Fields(string(procs))
	for _, pid := range pids {
		if pid == "0" { // in another PID namespace; writing 0 would move this process
			continue
		}
		err := os.WriteFile(filepath.Join(to, "cgroup.procs"), []byte(pid), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ESRCH) { // it ended
			return 0, fmt.Errorf("moving process %s: %w", pid, err)
		}
	}
	return len(pids), nil
}

// delegationHint says how to delegate the cgroup to the user, if it is not.
func delegationHint(own string, err error) string {
	if !errors.Is(err, os.ErrPermission) && !errors.Is(err, unix.EROFS) {
		return ""
	}
	unit := "the unit"
	for dir := own; dir != "/" && dir != "."; dir = filepath.Dir(dir) {
		if name := filepath.Base(dir); strings.HasSuffix(name, ".service") || strings.HasSuffix(name, ".scope") {
			unit = name
			break
		}
	}
	return fmt.Sprintf(" (the cgroup %s is not delegated to this user: set Delegate=yes in %s, or start with systemd-run --user --scope --property=Delegate=yes)", own, unit)
}

func enableControllers(cgroup string) error {
	available, err := os.ReadFile(filepath.Join(cgroup, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("reading the cgroup controllers: %w", err)
	}
	for _, c := range strings.Fields(string(available)) {
		if err := os.WriteFile(filepath.Join(cgroup, "cgroup.subtree_control"), []byte("+"+c), 0); err != nil {
			return fmt.Errorf("enabling the cgroup controller %s: %w", c, err)
		}
	}
	return nil
}

// ownCgroup2 finds the directory of the process's cgroup in the unified
// hierarchy.
func ownCgroup2() (string, error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
				if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
					return filepath.Join(root, path), nil
				}
			}
		}
	}
	return "", fmt.Errorf("the process is not in a cgroup v2 hierarchy")
}
