package userns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// mapToolError says why newuidmap or newgidmap has failed, and what to do about
// it. The programs themselves say little more than "Operation not permitted".
func mapToolError(tool, path string, maps []Mapping, output string, err error) error {
	if cause := mapToolCause(path, maps, "/proc/self/"+strings.TrimPrefix(tool, "new")); cause != "" {
		return fmt.Errorf("%s failed: %s", tool, cause)
	}
	var exit *exec.ExitError
	if output != "" && errors.As(err, &exit) {
		return fmt.Errorf("%s failed: %s (are the ranges of the user in /etc/subuid and /etc/subgid current? rootlesskit --check)",
			tool, strings.TrimPrefix(output, tool+": "))
	}
	return fmt.Errorf("%s failed: %w", tool, err)
}

// mapToolCause returns "" if it finds no cause. outer is the map of this
// process's user namespace, uid_map or gid_map.
func mapToolCause(path string, maps []Mapping, outer string) string {
	var st unix.Stat_t
	var fs unix.Statfs_t
	noNewPrivs, _ := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	switch {
	case noNewPrivs == 1:
		return "no_new_privs is set, so " + path + " gets no privilege: run without it " +
			"(NoNewPrivileges= of systemd, allowPrivilegeEscalation: of Kubernetes, no-new-privileges of Docker)"
	case unix.Statfs(path, &fs) == nil && fs.Flags&unix.MS_NOSUID != 0:
		return path + " is on a file system mounted with nosuid, where it gets no privilege: mount it without nosuid"
	case unix.Stat(path, &st) == nil && !privileged(path, &st):
		return fmt.Sprintf("%s is neither setuid root nor has file capabilities: sudo chown root %s && sudo chmod u+s %s", path, path, path)
	}
	for _, m := range maps {
		if !mapped(outer, m) {
			return fmt.Sprintf("this user namespace has no ids %d to %d: map them into it, or give the user another range in /etc/subuid and /etc/subgid",
				m.Host, uint64(m.Host)+uint64(m.Count)-1)
		}
	}
	return ""
}

func privileged(path string, st *unix.Stat_t) bool {
	var attr [64]byte
	n, err := unix.Getxattr(path, "security.capability", attr[:])
	return st.Mode&syscall.S_ISUID != 0 && st.Uid == 0 || err == nil && n > 0
}

// mapped reports whether an id map, in the form of /proc/PID/uid_map, contains
// all host ids of a mapping. It returns true if the map cannot be read.
func mapped(file string, m Mapping) bool {
	b, err := os.ReadFile(file)
	if err != nil {
		return true
	}
	first, last := uint64(m.Host), uint64(m.Host)+uint64(m.Count)-1
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			continue
		}
		inside, err1 := strconv.ParseUint(fields[0], 10, 32)
		count, err2 := strconv.ParseUint(fields[2], 10, 32)
		if err1 == nil && err2 == nil && inside <= first && last < inside+count {
			return true
		}
	}
	return false
}
