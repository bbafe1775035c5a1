package gvisor

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// dialTimeout is shorter than the kernel's: the namespace goes on asking
	// as long as it wants to wait, and each time is a new attempt.
	dialTimeout = 30 * time.Second
)

// socketFunc makes a nonblocking socket of the host, as socket(2) does. Tests
// have a host of their own.
type socketFunc func(family, kind, protocol int) (int, error)

func hostSocket(family, kind, protocol int) (int, error) {
	fd, err := unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
	return fd, os.NewSyscallError("socket", err)
}

// dialTCP connects a socket of the host.
func dialTCP(ctx context.Context, socket socketFunc, dst netip.AddrPort) (*os.File, error) {
	sa, family := sockaddr(dst)
	fd, err := socket(family, unix.SOCK_STREAM, unix.IPPROTO_TCP)
	if err != nil {
		return nil, err
	}
	err = unix.Connect(fd, sa)
	if err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return nil, os.NewSyscallError("connect", err)
	}
	file := os.NewFile(uintptr(fd), "tcp")
	if err != nil {
		if err := awaitConnected(ctx, file); err != nil {
			file.Close()
			return nil, fmt.Errorf("connect %s: %w", dst, err)
		}
	}
	prepareSocket(fd)
	return file, nil
}

// awaitConnected waits for the end of a connect(2) under way.
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

// connectState asks a socket how its connect(2) went. It is robust against
// wake-ups for nothing.
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

func sockaddr(a netip.AddrPort) (unix.Sockaddr, int) {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}, unix.AF_INET
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: zoneIndex(a.Addr())}, unix.AF_INET6
}

// addrPort is the inverse of sockaddr, with IPv4-mapped addresses unmapped.
func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// zoneIndex is the interface of a scoped address, which is named or a number, 0 if
// it has none.
func zoneIndex(a netip.Addr) uint32 {
	if a.Zone() == "" {
		return 0
	}
	if n, err := strconv.ParseUint(a.Zone(), 10, 32); err == nil {
		return uint32(n)
	}
	iface, err := net.InterfaceByName(a.Zone())
	if err != nil {
		return 0
	}
	return uint32(iface.Index)
}
