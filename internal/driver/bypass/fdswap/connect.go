package fdswap

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Connecting is a connect(2) whose caller has to wait.
type Connecting struct {
	caller  *Caller
	socket  *Socket
	address []byte
	waiting *os.File // a duplicate to wait with
}

// Connect connects a socket of the caller, in its place. A socket that blocks does
// not block this process: it is made nonblocking for the moment of the call, and
// where the caller has to wait, Connecting is what there is to wait for.
func (c *Caller) Connect(s *Socket, address []byte) (unix.Errno, *Connecting) {
	flags, err := unix.FcntlInt(uintptr(s.FD), unix.F_GETFL, 0)
	if err != nil {
		return unix.EBADF, nil
	}
	if flags&unix.O_NONBLOCK != 0 {
		return s.connect(address), nil
	}
	if _, err := unix.FcntlInt(uintptr(s.FD), unix.F_SETFL, flags|unix.O_NONBLOCK); err != nil {
		return unix.EBADF, nil
	}
	errno := s.connect(address)
	if errno == unix.EINPROGRESS && s.writable() { // a server on this machine
		errno = s.connect(address)
	}
	var connecting *Connecting
	if errno == unix.EINPROGRESS {
		waiting, err := s.pollable()
		if err != nil {
			errno = unix.ENOBUFS
		} else {
			connecting = &Connecting{c, s, address, waiting}
		}
	}
	_, _ = unix.FcntlInt(uintptr(s.FD), unix.F_SETFL, flags)
	return errno, connecting
}

// Await waits for what connect(2) is to return: until the connection is made or has
// failed; until SO_SNDTIMEO, where it is set; and until a signal that the caller has
// a handler for.
func (w *Connecting) Await() unix.Errno {
	defer w.waiting.Close()
	errno := w.await()
	if errno == 0 { // to the socket it is a connect that goes on, which this one ends
		errno = w.socket.connect(w.address)
	}
	return errno
}

// signalCheck is how often a caller that waits is looked at.
const signalCheck = 100 * time.Millisecond

// await returns 0 where the connection is made, and where it has failed.
func (w *Connecting) await() unix.Errno {
	rc, err := w.waiting.SyscallConn()
	if err != nil {
		return unix.ENOBUFS
	}
	var limit <-chan time.Time
	if tv, err := unix.GetsockoptTimeval(w.socket.FD, unix.SOL_SOCKET, unix.SO_SNDTIMEO); err == nil && tv.Nano() != 0 {
		limit = time.After(time.Duration(tv.Nano()))
	}
	for {
		_ = w.waiting.SetWriteDeadline(time.Now().Add(signalCheck))
		ended := false
		err := rc.Write(func(uintptr) bool {
			ended = w.socket.writable()
			return ended
		})
		switch {
		case ended:
			return 0
		case err != nil && !os.IsTimeout(err):
			return unix.ENOBUFS
		case !w.caller.call.Valid():
			return unix.EINTR // nobody waits
		case w.caller.interrupted():
			return unix.EINTR
		}
		select {
		case <-limit:
			return unix.EINPROGRESS
		default:
		}
	}
}

func (s *Socket) connect(address []byte) unix.Errno {
	return addressCall(unix.SYS_CONNECT, s.FD, address)
}

// pollable returns a duplicate that Go's poller knows, which it takes for
// nonblocking when it sees it.
func (s *Socket) pollable() (*os.File, error) {
	dup, err := unix.FcntlInt(uintptr(s.FD), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(dup), "connecting"), nil
}

func (s *Socket) writable() bool {
	fds := []unix.PollFd{{Fd: int32(s.FD), Events: unix.POLLOUT}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1
}
