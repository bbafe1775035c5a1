package gvisor

// Theory of operation.
//
// A relay joins a connection of the host, a kernel socket, with one of the
// namespace, an endpoint of the stack. Each direction is a goroutine that
// waits until it can move bytes, so that it holds no buffer while it waits:
//
//   - down (host to namespace): when the socket is readable, the endpoint
//     takes bytes right from it into the chunks of its send queue, as many as
//     the queue has room for. What it has no room for stays in the socket,
//     where TCP slows the peer down.
//   - up (namespace to host): the endpoint's received chunks are written right
//     to the socket. What the socket does not take stays in the endpoint's
//     receive queue, where TCP slows the namespace down.
//
// The end of one direction is carried over as a FIN and leaves the other
// running. A reset or failure on either side ends both with a reset on the
// other side: the host's by SO_LINGER 0, the namespace's by Abort. A reset
// that nobody is reading for is seen by the events of the endpoint, or by the
// socket's error when it is waited for.

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// relay is one forwarded TCP connection.
type relay struct {
	host *os.File // a nonblocking socket
	raw  syscall.RawConn
	ep   tcpip.Endpoint
	wq   *waiter.Queue
	// bytesIn and bytesOut count towards and from the namespace.
	bytesIn, bytesOut *atomic.Uint64

	closeOnce sync.Once
	reason    error // why it was aborted
}

// past is a deadline that wakes up at once.
var past = time.Unix(1, 0)

// errReset is what a connection was reset for by the namespace.
var errReset = errors.New("connection reset by the namespace")

// run moves bytes until both directions have ended, and closes both
// connections. It returns why the relay was cut, nil if it was not.
func (r *relay) run() error {
	events := waiter.EventHUp | waiter.EventErr
	reset := waiter.NewFunctionEntry(events, func(waiter.EventMask) {
		// Called with the endpoint locked: only wake the directions up.
		if r.ep.State() == uint32(tcp.StateError) {
			_ = r.host.SetDeadline(past)
		}
	})
	r.wq.EventRegister(&reset)
	defer r.wq.EventUnregister(&reset)

	var up sync.WaitGroup
	up.Go(func() { r.finish(r.up(), unix.SHUT_WR) })
	r.finish(r.down(), unix.SHUT_RD)
	up.Wait()
	r.closeOnce.Do(func() {
		r.host.Close()
		r.ep.Close()
	})
	return r.reason
}

// finish carries the end of a direction over.
func (r *relay) finish(err error, how int) {
	switch {
	case err != nil:
		r.abort(err)
	case how == unix.SHUT_WR:
		_ = r.raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_WR) })
	default:
		r.ep.Shutdown(tcpip.ShutdownWrite)
	}
}

// abort resets both connections, which ends both directions.
func (r *relay) abort(reason error) {
	r.closeOnce.Do(func() {
		r.reason = reason
		resetOnClose(r.raw)
		r.host.Close()
		r.ep.Abort()
	})
}

// resetOnClose makes the closing of a TCP socket send a reset.
func resetOnClose(raw syscall.RawConn) {
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	})
}

// down moves bytes to the namespace until the host's end of file.
func (r *relay) down() error {
	writable, ready := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventHUp | waiter.EventErr)
	r.wq.EventRegister(&writable)
	defer r.wq.EventUnregister(&writable)
	for {
		var full bool
		var failure error
		err := r.raw.Read(func(fd uintptr) bool {
			full, failure = r.fill(int(fd))
			return full || failure != nil
		})
		switch {
		case failure == io.EOF:
			return nil
		case failure != nil:
			return failure
		case err != nil:
			return r.waitError(err)
		}
		<-ready
	}
}

// fill moves bytes to the namespace until the socket has no more, or the
// endpoint's send queue is full.
func (r *relay) fill(fd int) (full bool, err error) {
	src := socketReader{fd: fd, count: r.bytesIn}
	for {
		_, tcpErr := r.ep.Write(&src, tcpip.WriteOptions{})
		switch {
		case src.err == unix.EAGAIN:
			return false, nil
		case src.err != nil:
			return false, src.err
		}
		if tcpErr != nil {
			if _, ok := tcpErr.(*tcpip.ErrWouldBlock); ok {
				return true, nil
			}
			return false, stackError(tcpErr)
		}
	}
}

// up moves bytes to the host until the namespace's end of file.
func (r *relay) up() error {
	readable, ready := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr)
	r.wq.EventRegister(&readable)
	defer r.wq.EventUnregister(&readable)
	for {
		var empty bool
		var failure error
		err := r.raw.Write(func(fd uintptr) bool {
			empty, failure = r.drain(int(fd))
			return empty || failure != nil
		})
		switch {
		case failure == io.EOF:
			return nil
		case failure != nil:
			return failure
		case err != nil:
			return r.waitError(err)
		}
		<-ready
	}
}

// drain moves bytes to the host until the endpoint has no more, or the socket
// is full.
func (r *relay) drain(fd int) (empty bool, err error) {
	dst := socketWriter{fd: fd, count: r.bytesOut}
	for {
		res, tcpErr := r.ep.Read(&dst, tcpip.ReadOptions{})
		if res.Count > 0 {
			r.ep.ModerateRecvBuf(res.Count)
		}
		switch {
		case dst.err == unix.EAGAIN:
			return false, nil
		case dst.err != nil:
			return false, dst.err
		}
		switch tcpErr.(type) {
		case nil:
		case *tcpip.ErrWouldBlock:
			return true, nil
		case *tcpip.ErrClosedForReceive:
			return false, io.EOF
		default:
			return false, stackError(tcpErr)
		}
	}
}

// waitError names the failure to wait for the socket.
func (r *relay) waitError(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errReset
	}
	return err
}

func stackError(err tcpip.Error) error {
	switch err.(type) {
	case *tcpip.ErrConnectionReset:
		return errReset
	case *tcpip.ErrConnectionRefused:
		return unix.ECONNREFUSED
	case *tcpip.ErrTimeout:
		return unix.ETIMEDOUT
	case *tcpip.ErrHostUnreachable:
		return unix.EHOSTUNREACH
	case *tcpip.ErrNetworkUnreachable:
		return unix.ENETUNREACH
	}
	return errors.New(err.String())
}

// socketReader lets an endpoint take bytes from a socket: a tcpip.Payloader.
type socketReader struct {
	fd    int
	count *atomic.Uint64 // bytes taken
	one   [1]byte        // a byte read to tell the end of file from no data
	n     int            // bytes in one
	err   error
}

// Len implements tcpip.Payloader: how much can be read without blocking. Where
// that is nothing, err says why.
func (s *socketReader) Len() int {
	available, err := unix.IoctlGetInt(s.fd, unix.SIOCINQ)
	if err != nil {
		s.err = err
		return 0
	}
	if available > 0 {
		return available
	}
	// An empty queue or the end of file: only reading tells.
	n, err := readRetry(s.fd, s.one[:])
	switch {
	case err != nil:
		s.err = err
	case n == 0:
		s.err = io.EOF
	default:
		s.n = n
		s.count.Add(1)
	}
	return s.n
}

// Read implements io.Reader.
func (s *socketReader) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if s.n > 0 {
		b[0], s.n = s.one[0], 0
		return 1, nil
	}
	n, err := readRetry(s.fd, b)
	if err != nil {
		return 0, err
	}
	if n == 0 {
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
	s.count.Add(uint64(len(b))) // before the peer can have them
	done := 0
	for done < len(b) {
		n, err := unix.Write(s.fd, b[done:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			s.err = err
			s.count.Add(-uint64(len(b) - done))
			return done, err
		}
		done += n
	}
	return done, nil
}

func readRetry(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Read(fd, b)
		if err != unix.EINTR {
			return n, err
		}
	}
}
