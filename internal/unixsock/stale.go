package unixsock

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// removeStale removes a socket on which no process listens any more, since a
// killed process leaves its socket behind. It reports whether the path is free.
//
// Another process may do the same at the same time, and may already listen there. So
// removeStale moves the socket aside, and puts it back if it is not the one that
// refused. The open descriptor keeps the inode number from being reused.
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

// refuses reports whether no process listens on a socket.
func refuses(path int) bool {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(s)
	// With this name, connecting works even if the path is too long for a socket address.
	return unix.Connect(s, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d", path)}) == unix.ECONNREFUSED
}
