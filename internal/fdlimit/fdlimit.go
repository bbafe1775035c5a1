// Package fdlimit tells how many descriptors the process may have, and how near
// it is to that.
package fdlimit

import "golang.org/x/sys/unix"

const (
	// unlimited stands for limits that no memory suffices for.
	unlimited = 1 << 20
	// usual is the limit where it cannot be read.
	usual = 1024
)

// Get returns RLIMIT_NOFILE: one more than the highest descriptor. It may change
// at any time (prlimit(2)).
func Get() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return usual
	}
	return int(min(limit.Cur, unlimited))
}

const (
	spare      = 16
	spareShare = 16 // of the limit, where that is less
)

// Ceiling returns the first descriptor that clients' connections are not to have.
// Those from it on are for what must work in a shortage too, such as the API, which
// may remove a port. The kernel gives the lowest free descriptor, so the number of
// one tells how many there are.
func Ceiling() int {
	limit := Get()
	return limit - min(spare, limit/spareShare)
}

// Room returns how many descriptors below the ceiling there are at least.
func Room() int {
	fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil { // EMFILE: there is not even one above it
		return 0
	}
	unix.Close(fd)
	return max(Ceiling()-fd, 0)
}
