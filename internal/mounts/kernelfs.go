package mounts

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Sys mounts a fresh /sys, which shows the devices of the process's own network
// namespace, and restores the mounts below the old one (cgroups, securityfs).
// If the kernel does not allow a fresh one (because parts of the old one are
// hidden, as in a container), the old one stays, and Sys returns an error.
func Sys() error {
	return keepBelow("/sys", func() error {
		if err := unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return fmt.Errorf("mounting /sys: %w", err)
		}
		return nil
	})
}

// keepBelow mounts something at a directory and restores the mounts that were
// below the directory.
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
		if h, err := hold(path); err == nil { // a mount that cannot be opened cannot be used either
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
		// It is no failure if the fresh mount lacks the directory.
		if err := h.bindTo(path); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

// mountsBelow returns the topmost mount points below a directory. A recursive
// bind includes the mounts below them.
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

// Cgroup2 mounts the unified cgroup hierarchy, as the process's own cgroup
// namespace shows it, at /sys/fs/cgroup, and restores the mounts that were below.
// It puts a tmpfs in between, because the kernel refuses to mount a file system
// on top of itself.
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
// the mounts that were below the old one (binfmt_misc). If the old one is
// read-only, the kernel only allows a read-only one (mount_namespaces(7),
// "Restrictions on mount namespaces"), and Proc reports it.
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
