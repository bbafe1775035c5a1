package seccomp

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"rootlesskit/internal/kernel"
)

// Probe returns an error if this process could not answer the calls of others.
// It does not try to install a filter.
func Probe() error {
	if syscalls.bind == 0 {
		return errors.New("the system call numbers of this architecture are not known")
	}
	if err := kernel.Notifications.Check(); err != nil {
		return err
	}
	if err := (Call{TID: os.Getpid()}).probeRead(); err != nil {
		return fmt.Errorf("reading the memory of a caller: %w", err)
	}
	return kernel.PidfdGetfd.Check()
}

func (c Call) probeRead() error {
	var from, to [1]byte
	return c.read(to[:], uint64(uintptr(unsafe.Pointer(&from))))
}
