package gvisor

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls of the data path. They do not block, so they are made
// without telling Go's scheduler, and allocate nothing.

func readFD(fd int, b []byte) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

func writeFD(fd int, b []byte) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

func readvFD(fd int, iov *[2]unix.Iovec) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_READV, uintptr(fd), uintptr(unsafe.Pointer(iov)), 2)
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

func writevFD(fd int, iov []unix.Iovec) unix.Errno {
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(iov))), uintptr(len(iov)))
		if errno != unix.EINTR {
			return errno
		}
	}
}

// readable is how many bytes a TCP socket has to read (FIONREAD).
func readable(fd int) int {
	var n int32
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCINQ, uintptr(unsafe.Pointer(&n)))
	if errno != 0 || n < 0 {
		return 0
	}
	return int(n)
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

func recvmmsg(fd int, msgs []mmsghdr, flags int) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(msgs))),
			uintptr(len(msgs)), uintptr(flags), 0, 0)
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

// sendmsg sends a datagram.
func sendmsg(fd int, payload, oob []byte, to *socketAddr) unix.Errno {
	var iov unix.Iovec
	iov.Base = unsafe.SliceData(payload)
	iov.SetLen(len(payload))
	var msg unix.Msghdr
	msg.Iov = &iov
	msg.SetIovlen(1)
	msg.Name = (*byte)(unsafe.Pointer(&to.raw))
	msg.Namelen = to.len
	if len(oob) > 0 {
		msg.Control = unsafe.SliceData(oob)
		msg.SetControllen(len(oob))
	}
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), unix.MSG_NOSIGNAL)
		if errno != unix.EINTR {
			return errno
		}
	}
}

// socketAddr is a socket address as the kernel has it: a struct sockaddr_in or
// sockaddr_in6.
type socketAddr struct {
	raw unix.RawSockaddrInet6 // the larger of the two
	len uint32
}

func newSocketAddr(a netip.AddrPort) socketAddr {
	var s socketAddr
	b := s.bytes()
	if a.Addr().Is4() {
		binary.NativeEndian.PutUint16(b, unix.AF_INET)
		ip := a.Addr().As4()
		copy(b[4:], ip[:])
		s.len = unix.SizeofSockaddrInet4
	} else {
		binary.NativeEndian.PutUint16(b, unix.AF_INET6)
		ip := a.Addr().As16()
		copy(b[8:], ip[:])
		s.raw.Scope_id = zoneIndex(a.Addr())
		s.len = unix.SizeofSockaddrInet6
	}
	binary.BigEndian.PutUint16(b[2:], a.Port())
	return s
}

func (s *socketAddr) bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(&s.raw)), unix.SizeofSockaddrInet6)
}

// addrPort is the address without its scope, and unmapped if it is a mapped
// one.
func (s *socketAddr) addrPort() netip.AddrPort {
	b := s.bytes()
	return netip.AddrPortFrom(parseSockaddr(b), binary.BigEndian.Uint16(b[2:]))
}
