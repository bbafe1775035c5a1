package relay

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls on TCP sockets, like those of sys.go: they do not block, they do not
// allocate, and an errno of 0 is success.

func sysRead(fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return count(n, errno)
}

func sysWrite(fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return count(n, errno)
}

// sysSend is write without SIGPIPE.
func sysSend(fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_NOSIGNAL, 0, 0)
	return count(n, errno)
}

func sysSplice(from, to, n int) (int, unix.Errno) {
	moved, _, errno := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n), unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
	return count(moved, errno)
}

func count(n uintptr, errno unix.Errno) (int, unix.Errno) {
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

func sysAccept(fd int) (conn int, peer netip.AddrPort, errno unix.Errno) {
	var sa unix.RawSockaddrInet6 // the longest that TCP has
	size := uint32(unsafe.Sizeof(sa))
	n, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&sa)),
		uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, netip.AddrPort{}, errno
	}
	return int(n), addrPort(&sa), 0
}

// sysGetsockname returns the zero AddrPort where it fails.
func sysGetsockname(fd int) netip.AddrPort {
	var sa unix.RawSockaddrInet6
	size := uint32(unsafe.Sizeof(sa))
	_, _, errno := unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return netip.AddrPort{}
	}
	return addrPort(&sa)
}

func sysBind(fd int, to netip.AddrPort) unix.Errno { return withAddress(unix.SYS_BIND, fd, to) }

func sysConnect(fd int, to netip.AddrPort) unix.Errno { return withAddress(unix.SYS_CONNECT, fd, to) }

func withAddress(call uintptr, fd int, a netip.AddrPort) unix.Errno {
	var sa unix.RawSockaddrInet6
	size := putAddrPort(&sa, a)
	_, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&sa)), size)
	return errno
}

// putAddrPort writes an address as the kernel wants it and returns its length.
func putAddrPort(sa *unix.RawSockaddrInet6, a netip.AddrPort) uintptr {
	// In both families the port comes after the family.
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:], a.Port())
	if ip := a.Addr().Unmap(); ip.Is4() {
		sa.Family = unix.AF_INET
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		v4.Addr = ip.As4()
		return unsafe.Sizeof(*v4)
	}
	sa.Family = unix.AF_INET6
	sa.Addr = a.Addr().As16()
	return unsafe.Sizeof(*sa)
}

// addrPort reads an address of the kernel's. A mapped IPv4 address is IPv4.
func addrPort(sa *unix.RawSockaddrInet6) netip.AddrPort {
	port := uint16(hostPort(sa.Port))
	if sa.Family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(sa)).Addr), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), port)
}

func sysShutdownWrite(fd int) {
	unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0)
}

func sysClose(fd int) { unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

func sysSetInt(fd, level, option int, value int32) {
	unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&value)), unsafe.Sizeof(value), 0)
}

func sysSetString(fd, level, option int, value string) {
	unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(unsafe.StringData(value))), uintptr(len(value)), 0)
}

// sysReset makes the close that follows a reset (RFC 9293, 3.10.4: ABORT).
func sysReset(fd int) {
	linger := unix.Linger{Onoff: 1}
	unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_LINGER,
		uintptr(unsafe.Pointer(&linger)), unsafe.Sizeof(linger), 0)
}
