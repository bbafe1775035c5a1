// Package sockio makes the system calls of the data paths, for the relay and
// for the embedded network.
//
// Descriptors are plain numbers, and all of them are nonblocking. So the calls do
// not block: they do not inform Go's scheduler, allocate nothing, restart when a
// signal interrupts them, and return a plain errno; 0 means success. A count that
// is returned with an errno is 0.
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

// Read reads the available bytes.
func Read(fd int, b []byte) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		if errno != unix.EINTR {
			return count(n, errno)
		}
	}
}

// Write writes as many bytes as the descriptor takes.
func Write(fd int, b []byte) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		if errno != unix.EINTR {
			return count(n, errno)
		}
	}
}

// Send is like Write, for a socket, without SIGPIPE.
func Send(fd int, b []byte) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
			unix.MSG_NOSIGNAL, 0, 0)
		if errno != unix.EINTR {
			return count(n, errno)
		}
	}
}

// Readv is like Read, into several buffers.
func Readv(fd int, iov []unix.Iovec) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_READV, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(iov))), uintptr(len(iov)))
		if errno != unix.EINTR {
			return count(n, errno)
		}
	}
}

// Writev is like Write, from several buffers.
func Writev(fd int, iov []unix.Iovec) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(iov))), uintptr(len(iov)))
		if errno != unix.EINTR {
			return count(n, errno)
		}
	}
}

// Splice moves up to n bytes; one side must be a pipe.
func Splice(from, to, n int) (int, unix.Errno) {
	for {
		moved, _, errno := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n),
			unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		if errno != unix.EINTR {
			return count(moved, errno)
		}
	}
}

// Unread returns how many bytes a TCP socket has to read (FIONREAD).
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

// Close closes a descriptor. It never retries: Linux has closed the descriptor,
// whatever close(2) returns.
func Close(fd int) { unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// CloseAll closes descriptors of any kind.
func CloseAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
