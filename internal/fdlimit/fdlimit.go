// Package fdlimit reports how many descriptors the process may have, and how
// many are left.
package fdlimit

import "golang.org/x/sys/unix"

const (
	// unlimited replaces limits beyond what memory allows.
	unlimited = 1 << 20
	// usual is the limit to assume if it cannot be read.
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
	spareShare = 16 // of the limit, if that is less
)

// Ceiling returns the first descriptor that connections of clients must not use.
// The descriptors from it on are reserved for what must work even in a shortage,
// such as the API, which may remove a port. The kernel allocates the lowest free
// descriptor, so a new descriptor's number shows how many are in use.
func Ceiling() int {
	limit := Get()
	return limit - min(spare, limit/spareShare)
}

// Room returns a lower bound of the number of free descriptors below the ceiling.
func Room() int {
	fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil { // EMFILE: not even one above it is free
		return 0
	}
	unix.Close(fd)
	return max(Ceiling()-fd, 0)
}
