package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// mounts reports the table; of several on one point, each, from the bottom.
func mounts() {
	peers := regexp.MustCompile(`:\d+`)
	seen := map[string]int{}
	for _, line := range strings.Split(strings.TrimSpace(content("/proc/self/mountinfo")), "\n") {
		f := strings.Fields(line)
		if len(f) < 10 {
			continue
		}
		dash := 6
		for f[dash] != "-" {
			dash++
		}
		point := f[4]
		key := fmt.Sprintf("mount.%s#%d", point, seen[point])
		seen[point]++
		propagation := peers.ReplaceAllString(strings.Join(f[6:dash], " "), "")
		say(key+".what", fmt.Sprint("type ", f[dash+1], " source ", f[dash+2], " root ", f[3]))
		say(key+".flags", f[5])
		say(key+".propagation", propagation)
		if f[dash+1] != "cgroup2" && f[dash+1] != "sysfs" { // as mounted, not as seen
			say(key+".options", f[dash+3])
		}
	}
}

// listings reports directories that clients look into, with owners, modes and
// where links lead.
func listings() {
	for _, dir := range []string{
		"/", "/sys", "/sys/fs", "/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/memory",
		"/sys/class/net", "/sys/kernel", "/sys/kernel/security", "/sys/kernel/debug", "/sys/fs/bpf", "/sys/module",
		"/proc", "/proc/sys", "/proc/self/net", "/proc/self/attr", "/dev", "/dev/pts", "/dev/shm", "/dev/net", "/dev/mqueue",
		"/etc", "/etc/ssl", "/etc/alternatives", "/run", "/run/user", "/var", "/var/run/", "/var/lib", "/mnt", "/opt", "/srv", "/home",
		os.Getenv("ROOTLESSKIT_STATE_DIR"), os.Getenv("XDG_RUNTIME_DIR"),
	} {
		if dir != "" {
			list(dir)
		}
	}
	for _, name := range []string{"/etc/resolv.conf", "/etc/hosts", "/etc/hostname", "/etc/passwd", "/etc/mtab", "/proc/filesystems", "/proc/swaps"} {
		if name != "/etc/mtab" {
			say("file."+name, content(name))
		}
	}
	for _, name := range []string{"child_pid", "resolv.conf", "hosts"} {
		say("file.state/"+name, content(filepath.Join(os.Getenv("ROOTLESSKIT_STATE_DIR"), name)))
	}
}

var number = regexp.MustCompile(`^\d+$`)

func list(dir string) {
	entries, err := os.ReadDir(dir)
	say("readable."+dir, reason(err))
	for _, e := range entries {
		if dir == "/proc" && number.MatchString(e.Name()) {
			continue
		}
		say("list."+strings.TrimRight(dir, "/")+"/"+e.Name(), describe(filepath.Join(dir, e.Name())))
	}
}

// describe says mode, owner and, of a link, where it leads and what is there.
func describe(name string) string {
	info, err := os.Lstat(name)
	if err != nil {
		return reason(err)
	}
	stat := info.Sys().(*syscall.Stat_t)
	s := fmt.Sprint(info.Mode(), " ", stat.Uid, ":", stat.Gid)
	switch {
	case info.Mode()&fs.ModeDevice != 0:
		s += fmt.Sprintf(" %d:%d", unix.Major(stat.Rdev), unix.Minor(stat.Rdev))
	case info.Mode()&fs.ModeSymlink != 0:
		target, _ := os.Readlink(name)
		s += " -> " + target
		if there, err := os.Stat(name); err != nil {
			s += " " + reason(err)
		} else {
			stat := there.Sys().(*syscall.Stat_t)
			s += fmt.Sprint(" ", there.Mode(), " ", stat.Uid, ":", stat.Gid)
		}
	case info.Mode().IsRegular() && strings.HasPrefix(name, "/etc"):
		s += fmt.Sprint(" ", info.Size(), " bytes")
	}
	return s
}

// sysctls reports all that can be read.
func sysctls() {
	_ = filepath.WalkDir("/proc/sys", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			say("sysctl."+name, reason(err))
			return nil
		}
		if e.Type().IsRegular() {
			say("sysctl."+name, mode(e)+" "+content(name))
		}
		return nil
	})
}

func mode(e fs.DirEntry) string {
	info, err := e.Info()
	if err != nil {
		return reason(err)
	}
	stat := info.Sys().(*syscall.Stat_t)
	return fmt.Sprint(info.Mode().Perm(), " ", stat.Uid, ":", stat.Gid)
}
