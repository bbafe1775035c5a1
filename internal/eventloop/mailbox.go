package eventloop

import (
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Mailbox has functions that other goroutines want a loop to run.
type Mailbox struct {
	fd     int // an eventfd, readable when there are some
	mu     sync.Mutex
	posted []func()
	ended  bool // no more are taken
}

// NewMailbox makes a Mailbox.
func NewMailbox() (*Mailbox, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	return &Mailbox{fd: fd}, nil
}

// FD becomes readable when Run has something to do, or at Wake.
func (m *Mailbox) FD() int { return m.fd }

// Close closes the descriptor, after End.
func (m *Mailbox) Close() { unix.Close(m.fd) }

// Post has the loop run f, soon. It returns false if the loop has ended and f will not
// run.
func (m *Mailbox) Post(f func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return false
	}
	m.posted = append(m.posted, f)
	if len(m.posted) == 1 {
		m.Wake() // under the lock, so that the descriptor cannot be closed in between
	}
	return true
}

// Call is Post, and waits until f has run. The loop itself must not call it.
func (m *Mailbox) Call(f func()) bool {
	ran := make(chan struct{})
	if !m.Post(func() { f(); close(ran) }) {
		return false
	}
	<-ran
	return true
}

// Wake makes the descriptor readable.
func (m *Mailbox) Wake() {
	one := uint64(1)
	unix.RawSyscall(unix.SYS_WRITE, uintptr(m.fd), uintptr(unsafe.Pointer(&one)), 8)
}

// Run runs what was posted. The loop calls it when the descriptor is readable.
func (m *Mailbox) Run() {
	var count uint64
	unix.RawSyscall(unix.SYS_READ, uintptr(m.fd), uintptr(unsafe.Pointer(&count)), 8)
	m.runPosted()
}

// End runs what was posted before, so that no Call waits for ever, and takes nothing
// more.
func (m *Mailbox) End() {
	m.mu.Lock()
	m.ended = true
	m.mu.Unlock()
	m.runPosted()
}

func (m *Mailbox) runPosted() {
	m.mu.Lock()
	posted := m.posted
	m.posted = nil
	m.mu.Unlock()
	for _, f := range posted {
		f()
	}
}
