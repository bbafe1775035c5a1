package apiserver

import (
	"sync"

	"golang.org/x/sys/unix"
)

// reserve is a descriptor that is closed when no others are left, for a client that
// may end the shortage, for instance by removing a port. Clients are then served
// one at a time, one request each.
type reserve struct {
	mu sync.Mutex
	fd int // -1: given up
}

func newReserve() *reserve {
	r := &reserve{fd: -1}
	r.restore()
	return r
}

// giveUp closes the descriptor. It reports whether there was one.
func (r *reserve) giveUp() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fd < 0 {
		return false
	}
	unix.Close(r.fd)
	r.fd = -1
	return true
}

// restore opens the descriptor again, if one is available.
func (r *reserve) restore() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fd >= 0 {
		return
	}
	if fd, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0); err == nil {
		r.fd = fd
	}
}
