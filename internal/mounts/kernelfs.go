package mounts

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Sys mounts a fresh /sys, which shows the devices of the process's own
// network namespace, and puts the mounts that were below the old one (cgroups,
// securityfs) back. Where the kernel does not allow a fresh one (parts of the
// old are hidden, as in a container) the old stays and the error says so.
func Sys() error {
	return keepBelow("/sys", func() error {
		if err := unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return fmt.Errorf("mounting /sys: %w", err)
		}
		return nil
	})
}

// keepBelow mounts something at a directory and puts what was mounted below it
// back over that.
func keepBelow(dir string, mount func() error) error {
	below, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	kept := map[string]held{}
	defer func() {
		for _, h := range kept {
			h.close()
		}
	}()
	for _, path := range below {
		if h, err := hold(path); err == nil { // one that cannot be opened cannot be used either
			kept[path] = h
		}
	}
	if err := mount(); err != nil {
		return err
	}
	for _, path := range below {
		h, ok := kept[path]
		if !ok {
			continue
		}
		// A directory that the fresh mount lacks is no failure.
		if err := h.bindTo(path); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

// mountsBelow lists the mount points directly below a directory, not those
// below another of them: a recursive bind carries these along.
func mountsBelow(dir string) ([]string, error) {
	infos, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return nil, fmt.Errorf("reading the mounts below %s: %w", dir, err)
	}
	var paths []string
	for _, i := range infos {
		covered := i.Mountpoint == dir // the filter passes the directory itself
		for _, p := range paths {
			covered = covered || i.Mountpoint == p || strings.HasPrefix(i.Mountpoint, p+string(filepath.Separator))
		}
		if !covered {
			paths = append(paths, i.Mountpoint)
		}
	}
	return paths, nil
}

// Cgroup2 mounts the unified hierarchy of cgroups at /sys/fs/cgroup, as the
// process's own cgroup namespace has it, with the mounts that were below. A tmpfs
// comes between: the kernel refuses a file system on top of itself.
func Cgroup2() error { return keepBelow("/sys/fs/cgroup", mountCgroup2) }

func mountCgroup2() error {
	const target, flags = "/sys/fs/cgroup", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("tmpfs", target, "tmpfs", flags, "mode=0755"); err != nil {
		return fmt.Errorf("mounting a tmpfs at %s: %w", target, err)
	}
	if err := unix.Mount("cgroup2", target, "cgroup2", flags, ""); err != nil {
		return fmt.Errorf("mounting cgroup2 at %s: %w", target, err)
	}
	return nil
}

// Proc mounts a fresh /proc, which shows the process's own PID namespace, with
// the mounts that were below the old one (binfmt_misc). Where the old one is
// read-only, the kernel allows but a read-only one (mount_namespaces(7),
// "Restrictions on mount namespaces"), which the result says.
func Proc() (readOnly bool, err error) {
	err = keepBelow("/proc", func() error {
		readOnly, err = mountProc()
		return err
	})
	return readOnly, err
}

func mountProc() (readOnly bool, err error) {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	err = unix.Mount("proc", "/proc", "proc", flags, "")
	if err == unix.EPERM && unix.Mount("proc", "/proc", "proc", flags|unix.MS_RDONLY, "") == nil {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("mounting /proc: %w (is part of the host's /proc hidden, as in a container?)", err)
	}
	return false, nil
}
