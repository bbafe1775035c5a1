package gvisor

// Theory of operation.
//
// A relay joins a connection of the host, a kernel socket, with one of the
// namespace, an endpoint of the stack. Each direction is a goroutine that
// waits until it can move bytes, so that it holds no buffer while it waits:
//
//   - down (host to namespace): when the socket is readable, the endpoint reads
//     bytes directly from it into the chunks of its send queue, as many as the
//     queue has room for. The rest stays in the socket, where TCP slows the
//     peer down.
//   - up (namespace to host): the endpoint's received chunks are written
//     directly to the socket. What the socket does not take stays in the
//     endpoint's receive queue, where TCP slows the namespace down.
//
// The end of one direction is carried over as a FIN and leaves the other
// running. A reset or failure on either side ends both with a reset on the
// other side: the host's by SO_LINGER 0, the namespace's by Abort. If no one is
// reading, a reset shows in the events of the endpoint, or in the socket's
// error when it is waited for.

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
	// bytesIn and bytesOut count bytes to and from the namespace.
	bytesIn, bytesOut *atomic.Uint64

	buffers *socketBuffers
	copied  int // bytes since the receive buffer was last adjusted

	closeOnce sync.Once
	reason    error // why it was aborted
}

// moderateStep is the number of bytes after which to adjust the receive buffer.
const moderateStep = 64 << 10

// past is a deadline that wakes up at once.
var past = time.Unix(1, 0)

// errReset says that the namespace has reset a connection.
var errReset = errors.New("connection reset by the namespace")

// run moves bytes until both directions have ended, and closes both
// connections. It returns why the relay was cut; nil if it was not.
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
	r.buffers.tuneSend(r.ep, initialSocketBuffer)

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
	var src *socketReader // only while there is something to move
	defer func() { r.putReader(src) }()
	for {
		var full bool
		var failure error
		err := r.raw.Read(func(fd uintptr) bool {
			if src == nil {
				src = r.takeReader(int(fd))
			}
			full, failure = r.fill(src)
			if !full && len(src.head) == 0 {
				r.putReader(src)
				src = nil
			}
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
		r.buffers.tuneSend(r.ep, maxSocketBuffer)
		<-ready
	}
}

func (r *relay) takeReader(fd int) *socketReader {
	s := readerPool.Get().(*socketReader)
	s.fd, s.count = fd, r.bytesIn
	return s
}

func (r *relay) putReader(s *socketReader) {
	if s != nil {
		s.count, s.head, s.err = nil, nil, nil
		readerPool.Put(s)
	}
}

// fill moves bytes to the namespace until the socket has no more, or the
// endpoint's send queue is full.
func (r *relay) fill(src *socketReader) (full bool, err error) {
	src.err = nil
	for {
		_, tcpErr := r.ep.Write(src, tcpip.WriteOptions{})
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
		if r.copied += res.Count; r.copied >= moderateStep {
			r.ep.ModerateRecvBuf(r.copied) // lets the receive buffer grow
			r.copied = 0
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

// waitError returns the error for a failed wait for the socket.
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
