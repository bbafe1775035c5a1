package relay

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls of the loops. They do not block, so they do not inform Go's
// scheduler. They return a plain errno, so that no error value is allocated.

// epollWait blocks for up to timeout milliseconds, or for ever if it is -1.
// This call informs the scheduler.
func epollWait(epfd int, events []unix.EpollEvent, timeout int) int {
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(epfd), uintptr(unsafe.Pointer(&events[0])),
		uintptr(len(events)), uintptr(timeout), 0, 0)
	if errno != 0 { // EINTR
		return 0
	}
	return int(n)
}

func epollPoll(epfd int, events []unix.EpollEvent) int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epfd), uintptr(unsafe.Pointer(&events[0])),
		uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

func epollCtl(epfd, op, fd int, events uint32, t token) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(t.slot), Pad: int32(t.generation)}
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(epfd), uintptr(op), uintptr(fd),
		uintptr(unsafe.Pointer(&ev)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// wake makes an eventfd readable.
func wake(fd int) {
	one := uint64(1)
	unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&one)), 8)
}

func drainWake(fd int) {
	var count uint64
	unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&count)), 8)
}
