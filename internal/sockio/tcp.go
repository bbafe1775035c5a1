package sockio

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A connection whose peer has vanished ends after KeepAliveIdle and
// KeepAliveCount probes, KeepAliveInterval apart. These are the values of Go's
// net package, which clients of RootlessKit are used to.
const (
	KeepAliveIdle     = 15 // seconds
	KeepAliveInterval = 15 // seconds
	KeepAliveCount    = 9
)

// PrepareTCP sets the options of every relayed socket. Accepted sockets inherit
// them from their listener, so they cost a connection nothing. None of them is
// vital.
func PrepareTCP(fd int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, KeepAliveIdle)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, KeepAliveInterval)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, KeepAliveCount)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
}

// Accept accepts a connection as a nonblocking, close-on-exec descriptor.
func Accept(fd int) (conn int, peer netip.AddrPort, errno unix.Errno) {
	a := room()
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&a.raw)),
			uintptr(unsafe.Pointer(&a.size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		switch errno {
		case 0:
			return int(n), a.AddrPort(), 0
		case unix.EINTR:
		default:
			return -1, netip.AddrPort{}, errno
		}
	}
}

// LocalAddr returns the address to which a socket is bound; the zero AddrPort
// if that fails.
func LocalAddr(fd int) netip.AddrPort {
	a := room()
	_, _, errno := unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&a.raw)), uintptr(unsafe.Pointer(&a.size)))
	if errno != 0 {
		return netip.AddrPort{}
	}
	return a.AddrPort()
}

// Bind binds a socket.
func Bind(fd int, to netip.AddrPort) unix.Errno { return withAddr(unix.SYS_BIND, fd, to) }

// Connect begins a connection: EINPROGRESS says that epoll will report the rest.
func Connect(fd int, to netip.AddrPort) unix.Errno { return withAddr(unix.SYS_CONNECT, fd, to) }

func withAddr(call uintptr, fd int, to netip.AddrPort) unix.Errno {
	a := AddrOf(to)
	_, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&a.raw)), uintptr(a.size))
	return errno
}

// ShutdownWrite shuts down a socket's sending direction.
func ShutdownWrite(fd int) { unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0) }

// SetInt sets an option, if the kernel accepts it.
func SetInt(fd, level, option int, value int32) {
	unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&value)), unsafe.Sizeof(value), 0)
}

// SetString sets an option, if the kernel accepts it.
func SetString(fd, level, option int, value string) {
	unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(unsafe.StringData(value))), uintptr(len(value)), 0)
}

// Reset makes the following close send a reset (RFC 9293, 3.10.4: ABORT).
func Reset(fd int) {
	linger := unix.Linger{Onoff: 1}
	unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_LINGER,
		uintptr(unsafe.Pointer(&linger)), unsafe.Sizeof(linger), 0)
}
