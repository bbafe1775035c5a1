package apiserver

import (
	"sync"

	"golang.org/x/sys/unix"
)

// reserve is a descriptor that is given up when there are no more: for the client
// who may end the shortage, by removing a port for instance. Clients are served one
// at a time then, and for one request each.
type reserve struct {
	mu sync.Mutex
	fd int // -1: given up
}

func newReserve() *reserve {
	r := &reserve{fd: -1}
	r.restore()
	return r
}

// giveUp frees the descriptor. It reports whether there was one.
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

// restore takes a descriptor again, if there is one.
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
