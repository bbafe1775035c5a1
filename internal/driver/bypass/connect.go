package bypass

import (
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/seccomp"
)

// connect makes a connection in place of the caller, under isolation: with its
// own copies of the address and of the socket, so that it does not matter what
// the caller changes meanwhile. Landlock refuses TCP to the caller itself. Sockets
// of the host are not connected, whatever the address.
//
// What is not TCP goes on: a caller that puts another socket in its place meanwhile
// is refused by Landlock.
//
// Only what has to be waited for gets a goroutine, by async: to wake one up would
// take longer than all the rest.
func (p *Ports) connect(c seccomp.Call, async func(func())) {
	raw, err := c.Sockaddr()
	if err != nil || len(raw) < 2 {
		c.Continue()
		return
	}
	caller, err := openCaller(c)
	if err != nil {
		c.Continue()
		return
	}
	s, err := caller.socket(c.FD)
	if err != nil {
		caller.close()
		c.Continue()
		return
	}
	finish := func(errno unix.Errno) {
		s.close()
		caller.close()
		_ = c.Return(errno)
	}
	switch {
	case !s.tcp:
		s.close()
		caller.close()
		c.Continue()
	case s.netns == p.host:
		p.log().Debug("a socket of the host may not be connected from inside", "pid", caller.tid)
		finish(unix.EACCES)
	default:
		errno, waiting := connectFor(s.fd, raw)
		if waiting == nil {
			finish(errno)
			return
		}
		async(func() {
			defer waiting.Close()
			errno := awaitConnection(c, caller, waiting, s.fd)
			if errno == 0 { // to the socket it is a connect that goes on, which this one ends
				errno = rawConnect(s.fd, raw)
			}
			finish(errno)
		})
	}
}

// signalCheck is how often a caller that waits is looked at.
const signalCheck = 100 * time.Millisecond

// connectFor connects. A socket that blocks does not block this process: it is
// made nonblocking for the moment of the call, and where the caller has to wait,
// a duplicate is returned to wait with.
func connectFor(fd int, raw []byte) (unix.Errno, *os.File) {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return unix.EBADF, nil
	}
	if flags&unix.O_NONBLOCK != 0 {
		return rawConnect(fd, raw), nil
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags|unix.O_NONBLOCK); err != nil {
		return unix.EBADF, nil
	}
	errno := rawConnect(fd, raw)
	if errno == unix.EINPROGRESS && writable(fd) { // a server on this machine
		errno = rawConnect(fd, raw)
	}
	var waiting *os.File
	if errno == unix.EINPROGRESS {
		if waiting, err = pollable(fd); err != nil {
			errno = unix.ENOBUFS
		}
	}
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags)
	return errno, waiting
}

func rawConnect(fd int, raw []byte) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&raw[0])), uintptr(len(raw)))
	return errno
}

// pollable returns a duplicate that Go's poller knows, which it takes for
// nonblocking when it sees it.
func pollable(fd int) (*os.File, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(dup), "connecting"), nil
}

// awaitConnection waits until the connection is made or has failed, which is 0;
// until SO_SNDTIMEO, where it is set; and until a signal that the caller has
// a handler for.
func awaitConnection(c seccomp.Call, caller *caller, f *os.File, fd int) unix.Errno {
	rc, err := f.SyscallConn()
	if err != nil {
		return unix.ENOBUFS
	}
	var limit <-chan time.Time
	if tv, err := unix.GetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO); err == nil && tv.Nano() != 0 {
		limit = time.After(time.Duration(tv.Nano()))
	}
	for {
		_ = f.SetWriteDeadline(time.Now().Add(signalCheck))
		connected := false
		err := rc.Write(func(uintptr) bool {
			connected = writable(fd)
			return connected
		})
		switch {
		case connected:
			return 0
		case err != nil && !os.IsTimeout(err):
			return unix.ENOBUFS
		case !c.Valid():
			return unix.EINTR // nobody waits
		case caller.interrupted():
			return unix.EINTR
		}
		select {
		case <-limit:
			return unix.EINPROGRESS
		default:
		}
	}
}

func writable(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1
}
