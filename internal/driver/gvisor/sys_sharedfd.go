package gvisor

import (
	"os"
	"sync"
	"syscall"
)

// sharedFD is a nonblocking descriptor that some goroutines use by number while
// another may close it, at the cost of an uncontended lock.
type sharedFD struct {
	file *os.File
	raw  syscall.RawConn // to wait for readiness

	mu sync.RWMutex
	fd int // -1 when closed
}

func newSharedFD(fd int, name string) (*sharedFD, error) {
	file := os.NewFile(uintptr(fd), name)
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	return &sharedFD{file: file, raw: raw, fd: fd}, nil
}

// acquire returns the descriptor, and false once it is closed. With true, it
// stays open until release.
func (s *sharedFD) acquire() (int, bool) {
	s.mu.RLock()
	if s.fd < 0 {
		s.mu.RUnlock()
		return -1, false
	}
	return s.fd, true
}

func (s *sharedFD) release() { s.mu.RUnlock() }

// closed reports whether close was called.
func (s *sharedFD) closed() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.fd < 0
}

// close closes the descriptor and wakes up goroutines that wait for it.
func (s *sharedFD) close() {
	s.mu.Lock()
	open := s.fd >= 0
	s.fd = -1
	s.mu.Unlock()
	// Without the lock: this waits for the reader, who may be about to write.
	if open {
		s.file.Close()
	}
}
