package translate

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/eventloop"
)

// fakeSocket is a socket of the host.
type fakeSocket struct {
	target  netip.AddrPort
	watcher eventloop.Handler
	err     unix.Errno // SO_ERROR

	input   []byte // to receive
	eof     bool
	recvErr unix.Errno
	urgent  int // bytes in front of urgent data

	output  []byte // was sent
	room    int
	sendErr unix.Errno

	shut, closed, reset bool
}

func (s *fakeSocket) Watch(w eventloop.Handler) error { s.watcher = w; return nil }

func (s *fakeSocket) Connected() unix.Errno {
	e := s.err
	s.err = 0
	return e
}

func (s *fakeSocket) Recv(b []byte) (int, unix.Errno) {
	switch {
	case s.closed:
		panic("a closed socket was used")
	case len(s.input) > 0:
		n := copy(b, s.input)
		if s.urgent > 0 {
			n = min(n, s.urgent) // the kernel stops there once
			s.urgent -= n
		}
		s.input = s.input[n:]
		return n, 0
	case s.recvErr != 0: // the kernel reports an error once, and then the end
		errno := s.recvErr
		s.recvErr, s.eof, s.sendErr = 0, true, unix.EPIPE
		return 0, errno
	case s.eof:
		return 0, 0
	}
	return 0, unix.EAGAIN
}

func (s *fakeSocket) Send(b []byte) (int, unix.Errno) {
	switch {
	case s.closed:
		panic("a closed socket was used")
	case s.shut:
		return 0, unix.EPIPE
	case s.sendErr != 0:
		return 0, s.sendErr
	case s.room == 0:
		return 0, unix.EAGAIN
	}
	n := min(len(b), s.room)
	s.output = append(s.output, b[:n]...)
	s.room -= n
	return n, 0
}

func (s *fakeSocket) ShutdownWrite() { s.shut = true }
func (s *fakeSocket) Close()         { s.closed = true }
func (s *fakeSocket) Reset()         { s.closed, s.reset = true, true }
