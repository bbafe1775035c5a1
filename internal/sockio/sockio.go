// Package sockio makes the system calls of the data paths: on sockets of the
// relay and of the embedded network, and on what those read from and write to.
//
// Descriptors are plain numbers, and all of them are nonblocking. So the calls do
// not block: they are made without telling Go's scheduler, allocate nothing,
// start again when a signal interrupts them, and return a plain errno, of which 0
// is success. The number that is returned beside an errno is 0.
//
//	sockio   bytes: read, write, send, splice
//	tcp      accept, connect, options of connections
//	addr     addresses as the kernel has them
//	message  datagrams, many at once
//	control  what goes with a datagram: the local address, segments
//	bpf      programs of classic BPF
package sockio

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Read reads what there is.
func Read(fd int, b []byte) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		if errno != unix.EINTR {
			return count(n, errno)
		}
	}
}

// Write writes what is taken.
func Write(fd int, b []byte) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		if errno != unix.EINTR {
			return count(n, errno)
		}
	}
}

// Send is Write on a socket, without SIGPIPE.
func Send(fd int, b []byte) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
			unix.MSG_NOSIGNAL, 0, 0)
		if errno != unix.EINTR {
			return count(n, errno)
		}
	}
}

// Readv is Read into several buffers.
func Readv(fd int, iov []unix.Iovec) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_READV, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(iov))), uintptr(len(iov)))
		if errno != unix.EINTR {
			return count(n, errno)
		}
	}
}

// Writev is Write from several buffers.
func Writev(fd int, iov []unix.Iovec) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(iov))), uintptr(len(iov)))
		if errno != unix.EINTR {
			return count(n, errno)
		}
	}
}

// Splice moves up to n bytes, of which one side is a pipe.
func Splice(from, to, n int) (int, unix.Errno) {
	for {
		moved, _, errno := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n),
			unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		if errno != unix.EINTR {
			return count(moved, errno)
		}
	}
}

// Unread is how many bytes a TCP socket has to be read (FIONREAD).
func Unread(fd int) int {
	var n int32
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCINQ, uintptr(unsafe.Pointer(&n)))
	if errno != 0 || n < 0 {
		return 0
	}
	return int(n)
}

func count(n uintptr, errno unix.Errno) (int, unix.Errno) {
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// Close closes a descriptor. It is not tried again: Linux has closed it, whatever
// it returns (close(2)).
func Close(fd int) { unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// CloseAll closes descriptors of any kind.
func CloseAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
