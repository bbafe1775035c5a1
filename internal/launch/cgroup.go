package launch

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// evacuateCgroup2 moves every process of the own cgroup into a sub-cgroup, so
// that the own one may have controllers enabled for its children: cgroups(7),
// "no internal processes" rule.
func evacuateCgroup2(group string) error {
	if group == "" {
		return nil
	}
	own, err := ownCgroup2()
	if err != nil {
		return fmt.Errorf("evacuating to cgroup %q: %w", group, err)
	}
	sub := filepath.Join(own, group)
	if err := os.MkdirAll(sub, 0o755); err != nil {
		return fmt.Errorf("evacuating to cgroup %q: %w", group, err)
	}
	procs, err := os.ReadFile(filepath.Join(own, "cgroup.procs"))
	if err != nil {
		return fmt.Errorf("evacuating to cgroup %q: %w", group, err)
	}
	for _, pid := range strings.Fields(string(procs)) {
		if err := os.WriteFile(filepath.Join(sub, "cgroup.procs"), []byte(pid), 0); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("evacuating process %s to cgroup %q: %w", pid, group, err)
		}
	}
	return enableControllers(own)
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
	return "", fmt.Errorf("the process is in no cgroup v2 hierarchy")
}
