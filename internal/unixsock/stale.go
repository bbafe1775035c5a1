package unixsock

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// removeStale removes a socket that nobody listens at any more: a process that is
// killed leaves its socket behind. It reports whether the path is free.
//
// Somebody else may do the same at the same time, and listen there by now. So the
// socket is moved aside, and put back where it is another than the one that refused.
// The descriptor keeps its inode number from being given to the other one.
func removeStale(path string) bool {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err == unix.ENOENT
	}
	defer unix.Close(fd)
	var refused, moved unix.Stat_t
	if unix.Fstat(fd, &refused) != nil || refused.Mode&unix.S_IFMT != unix.S_IFSOCK || !refuses(fd) {
		return false
	}
	aside := fmt.Sprintf("%s.stale-%d", path, os.Getpid())
	if err := unix.Rename(path, aside); err != nil {
		return err == unix.ENOENT
	}
	if err := unix.Lstat(aside, &moved); err == nil && moved.Ino == refused.Ino && moved.Dev == refused.Dev {
		return unix.Unlink(aside) == nil
	}
	_ = unix.Renameat2(unix.AT_FDCWD, aside, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	return false
}

// refuses reports whether nobody listens at a socket.
func refuses(path int) bool {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(s)
	// By this name, a path that is too long for a socket can be connected to.
	return unix.Connect(s, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d", path)}) == unix.ECONNREFUSED
}
