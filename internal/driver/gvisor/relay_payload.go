package gvisor

import (
	"io"
	"sync"
	"sync/atomic"

	"rootlesskit/internal/sockio"
)

// socketReader lets an endpoint take bytes from a socket: a tcpip.Payloader.
//
// Most reads are small, and need only one system call, into a small buffer.
// Only if that is full, the size of the rest is queried, and the rest is read
// directly from the socket.
type socketReader struct {
	fd    int
	count *atomic.Uint64 // bytes taken
	head  []byte         // bytes read that were not yet taken
	err   error          // why there is nothing to take
	buf   [smallRead]byte
}

// smallRead is the size of a small read.
const smallRead = 2 << 10

var readerPool = sync.Pool{New: func() any { return new(socketReader) }}

// Len implements tcpip.Payloader: it returns how much can be read without
// blocking. If that is 0, err says why.
func (s *socketReader) Len() int {
	if len(s.head) > 0 {
		return len(s.head)
	}
	n, errno := sockio.Read(s.fd, s.buf[:])
	switch {
	case errno != 0:
		s.err = errno
		return 0
	case n == 0:
		s.err = io.EOF
		return 0
	}
	s.count.Add(uint64(n))
	s.head = s.buf[:n]
	if n < len(s.buf) {
		return n
	}
	return n + sockio.Unread(s.fd)
}

// Read implements io.Reader.
func (s *socketReader) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if len(s.head) > 0 {
		n := copy(b, s.head)
		s.head = s.head[n:]
		return n, nil
	}
	n, errno := sockio.Read(s.fd, b)
	switch {
	case errno != 0:
		return 0, errno
	case n == 0:
		// Len promised more. Not io.EOF, which the stack would read again for.
		return 0, io.ErrUnexpectedEOF
	}
	s.count.Add(uint64(n))
	return n, nil
}

// socketWriter lets an endpoint give bytes to a socket.
type socketWriter struct {
	fd    int
	count *atomic.Uint64 // bytes given
	err   error
}

// Write implements io.Writer. It writes what the socket takes.
func (s *socketWriter) Write(b []byte) (int, error) {
	s.count.Add(uint64(len(b))) // before the peer can get them
	done := 0
	for done < len(b) {
		n, errno := sockio.Write(s.fd, b[done:])
		if errno != 0 {
			s.err = errno
			s.count.Add(-uint64(len(b) - done))
			return done, errno
		}
		done += n
	}
	return done, nil
}
