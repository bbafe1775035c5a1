package gvisor

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/sockio"
)

const (
	// dialTimeout is shorter than the kernel's: the namespace repeats its SYN as
	// long as it wants to wait, and each time is a new attempt.
	dialTimeout = 30 * time.Second
)

// socketFunc makes a nonblocking socket of the host, like socket(2). Tests
// replace it.
type socketFunc func(family, kind, protocol int) (int, error)

func hostSocket(family, kind, protocol int) (int, error) {
	fd, err := unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
	return fd, os.NewSyscallError("socket", err)
}

// dialTCP connects a socket of the host.
func dialTCP(ctx context.Context, socket socketFunc, dst netip.AddrPort) (*os.File, error) {
	fd, err := socket(sockio.Family(dst.Addr()), unix.SOCK_STREAM, unix.IPPROTO_TCP)
	if err != nil {
		return nil, err
	}
	errno := sockio.Connect(fd, dst)
	if errno != 0 && errno != unix.EINPROGRESS {
		unix.Close(fd)
		return nil, os.NewSyscallError("connect", errno)
	}
	file := os.NewFile(uintptr(fd), "tcp")
	if errno != 0 {
		if err := awaitConnected(ctx, file); err != nil {
			file.Close()
			return nil, fmt.Errorf("connect %s: %w", dst, err)
		}
	}
	sockio.PrepareTCP(fd)
	return file, nil
}

// awaitConnected waits for the end of a connect(2) in progress.
func awaitConnected(ctx context.Context, file *os.File) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	if err := file.SetWriteDeadline(time.Now().Add(dialTimeout)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = file.SetWriteDeadline(past) })
	defer stop()
	var failure error
	err = raw.Write(func(fd uintptr) bool {
		var pending bool
		pending, failure = connectState(int(fd))
		return !pending
	})
	if failure != nil {
		return failure
	}
	if err != nil {
		return err
	}
	if !stop() {
		return ctx.Err()
	}
	return file.SetWriteDeadline(time.Time{})
}

// connectState returns the result of a socket's connect(2). It is robust
// against spurious wake-ups.
func connectState(fd int) (pending bool, err error) {
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return false, os.NewSyscallError("getsockopt", err)
	}
	if errno != 0 {
		return false, unix.Errno(errno)
	}
	if _, err := unix.Getpeername(fd); err != nil {
		return true, nil
	}
	return false, nil
}
