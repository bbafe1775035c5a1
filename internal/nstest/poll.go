package nstest

import (
	"time"

	"golang.org/x/sys/unix"
)

// Poll waits for events of a descriptor, and returns those that are there; 0 if none
// came in time. Signals, which the Go runtime uses too, do not end the wait.
func Poll(fd int, events int16, patience time.Duration) (int16, error) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
	for end := time.Now().Add(patience); ; {
		_, err := unix.Poll(fds, int(max(0, time.Until(end).Milliseconds())))
		if err != unix.EINTR {
			return fds[0].Revents, err
		}
	}
}

// AwaitConnect waits until a connection under way is made, or has failed.
func AwaitConnect(fd int) error {
	events, err := Poll(fd, unix.POLLOUT, time.Minute)
	switch {
	case err != nil:
		return err
	case events == 0:
		return unix.ETIMEDOUT
	}
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && code != 0 {
		err = unix.Errno(code)
	}
	return err
}
