package fdswap

import "golang.org/x/sys/unix"

// What became of a socket after a swap. It is known by its inode: a descriptor of
// it, kept here, would keep it open after its server has ended.

// Holds reports whether a process has a socket under a descriptor.
func Holds(pid, fd int, inode uint64) bool { return fdLink(pid, fd) == socketLink(inode) }

// ShutDown shuts down the sockets with these inodes (shutdown(2)), in whatever
// processes they are.
func ShutDown(inodes map[uint64]bool) {
	links := map[string]bool{}
	for inode := range inodes {
		links[socketLink(inode)] = true
	}
	for _, pid := range processes() {
		for _, fd := range fdsOf(pid, func(link string) bool { return links[link] }) {
			shutDown(pid, fd)
		}
	}
}

func shutDown(pid, fd int) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(pidfd)
	if dup, err := unix.PidfdGetfd(pidfd, fd, 0); err == nil {
		_ = unix.Shutdown(dup, unix.SHUT_RDWR)
		unix.Close(dup)
	}
}
