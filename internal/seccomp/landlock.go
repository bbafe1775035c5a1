package seccomp

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/kernel"
)

// noConnectRuleset forbids connecting any TCP socket: it has no rules that allow
// something.
func noConnectRuleset() (int, error) {
	if err := kernel.LandlockTCP.Check(); err != nil {
		return -1, err
	}
	attr := struct{ fs, net uint64 }{net: unix.LANDLOCK_ACCESS_NET_CONNECT_TCP}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return -1, fmt.Errorf("landlock_create_ruleset: %w", errno)
	}
	return int(fd), nil
}

// restrictSelf restricts the calling thread and everything it starts.
func restrictSelf(ruleset int) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(ruleset), 0, 0); errno != 0 {
		return fmt.Errorf("landlock_restrict_self: %w", errno)
	}
	return nil
}
