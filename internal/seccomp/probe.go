package seccomp

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Probe says why this process could not answer for others; nil: it can. Whether
// a filter can be installed, Install tells.
func Probe() error {
	if syscalls.bind == 0 {
		return fmt.Errorf("the system calls of this architecture are not known here")
	}
	action := uint32(unix.SECCOMP_RET_USER_NOTIF)
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action))); errno != 0 {
		return fmt.Errorf("seccomp has no notifications here (Linux 5.0): %w", errno)
	}
	if err := (Call{TID: os.Getpid()}).probeRead(); err != nil {
		return err
	}
	return probeGetfd()
}

func (c Call) probeRead() error {
	var from, to [1]byte
	return c.read(to[:], uint64(uintptr(unsafe.Pointer(&from))))
}

func probeGetfd() error {
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, pidfd, 0)
	if err != nil {
		return os.NewSyscallError("pidfd_getfd", err)
	}
	return unix.Close(fd)
}
