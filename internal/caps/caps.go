// Package caps reads and changes the capabilities of threads (capabilities(7)).
package caps

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sets are the capabilities of a thread, first 0 to 31 and then 32 to 63 (version 3 of
// capget(2) and capset(2)).
type Sets [2]unix.CapUserData

// Get returns the capabilities of the calling thread.
func Get() (Sets, error) {
	var s Sets
	hdr := header()
	if err := unix.Capget(&hdr, &s[0]); err != nil {
		return s, fmt.Errorf("capget: %w", err)
	}
	return s, nil
}

// Set sets the capabilities of the calling thread, which should be locked.
func (s Sets) Set() error {
	hdr := header()
	if err := unix.Capset(&hdr, &s[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}

// SetAllThreads sets the capabilities of every thread of the process. It needs a
// build without cgo (see syscall.AllThreadsSyscall).
func (s Sets) SetAllThreads() error {
	hdr := header()
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&s[0])), 0)
	if errno != 0 {
		return fmt.Errorf("capset: %w", errno)
	}
	return nil
}

func header() unix.CapUserHeader { return unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3} }

func bit(c uint) uint32 { return 1 << (c % 32) }

// Permits reports whether a capability is permitted.
func (s Sets) Permits(c uint) bool { return s[c/32].Permitted&bit(c) != 0 }

// Has reports whether a capability is in effect.
func (s Sets) Has(c uint) bool { return s[c/32].Effective&bit(c) != 0 }

// With returns the sets with a capability in effect.
func (s Sets) With(c uint) Sets {
	s[c/32].Effective |= bit(c)
	return s
}

// Without returns the sets with a capability not in effect, and permitted as before.
func (s Sets) Without(c uint) Sets {
	s[c/32].Effective &^= bit(c)
	return s
}

// Effective reports whether the calling thread has a capability in effect.
func Effective(c uint) (bool, error) {
	s, err := Get()
	return s.Has(c), err
}

// All lists every capability that the kernel knows.
func All() []uintptr {
	last := uintptr(unix.CAP_LAST_CAP)
	if b, err := os.ReadFile("/proc/sys/kernel/cap_last_cap"); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			last = uintptr(n)
		}
	}
	all := make([]uintptr, 0, last+1)
	for c := uintptr(0); c <= last; c++ {
		all = append(all, c)
	}
	return all
}

// DropInheritable empties the ambient and inheritable sets of the calling
// thread, so that a program it executes has the capabilities of its user id
// and nothing else. Call it on the locked thread that executes the program.
func DropInheritable() error {
	// The ambient set came with Linux 4.3; older kernels return EINVAL.
	err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	if err != nil && err != unix.EINVAL {
		return fmt.Errorf("clearing the ambient capabilities: %w", err)
	}
	s, err := Get()
	if err != nil {
		return err
	}
	s[0].Inheritable, s[1].Inheritable = 0, 0
	return s.Set()
}
