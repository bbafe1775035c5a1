// Package seccomp lets one process decide about system calls of others. It has
// filters with a listener, their notifications, and Landlock. See seccomp(2),
// seccomp_unotify(2) and landlock(7).
//
// Theory of operation. A thread installs a filter and gets a descriptor; every
// process that it starts from then on has the filter. If one of them makes a
// system call that the filter asks about, the kernel stops it until the holder
// of the descriptor has answered, either "continue" or a result. The memory
// that the call's arguments point to may change while it is examined. So
// "continue" must not be a security decision, unless only the register
// arguments matter.
package seccomp

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/sockio"
)

// Policy says which system calls the listener is asked about.
type Policy struct {
	// Isolate is for processes that may have sockets of another network namespace and
	// must not connect them. The filter asks about connect in addition to bind, and
	// refuses what connects without it: MSG_FASTOPEN (EOPNOTSUPP), TCP_ULP (ENOENT), and
	// io_uring (ENOSYS), which filters cannot inspect. Install also sets up Landlock,
	// which refuses every connect of a TCP socket that the listener's holder does not
	// make itself.
	Isolate bool `json:"isolate,omitempty"`
}

// Install installs the policy for the calling thread, which must be locked, and
// for everything it starts from now on. It needs CAP_SYS_ADMIN in the user
// namespace. The listener is close-on-exec, and the caller owns it. If Install
// fails, either nothing is installed, or the filter has no listener, so that
// filtered calls fail with ENOSYS; the thread must then start nothing.
func Install(p Policy) (listener int, err error) {
	if syscalls.bind == 0 {
		return -1, fmt.Errorf("the system call numbers of %s are not known", runtime.GOARCH)
	}
	ruleset := -1
	if p.Isolate {
		if ruleset, err = noConnectRuleset(); err != nil {
			return -1, err
		}
		defer unix.Close(ruleset)
	}
	program, err := sockio.Program(p.program())
	if err != nil {
		return -1, err
	}
	if listener, err = setFilter(program); err != nil {
		return -1, fmt.Errorf("installing a seccomp filter: %w", err)
	}
	if ruleset >= 0 {
		if err := restrictSelf(ruleset); err != nil {
			unix.Close(listener)
			return -1, &HalfInstalledError{err}
		}
	}
	return listener, nil
}

// HalfInstalledError says that the thread has a filter and must not be used.
type HalfInstalledError struct{ Err error }

func (e *HalfInstalledError) Error() string {
	return "a seccomp filter was installed only in part: " + e.Err.Error()
}

func (e *HalfInstalledError) Unwrap() error { return e.Err }

func setFilter(program *unix.SockFprog) (int, error) {
	// Without WAIT_KILLABLE_RECV, a signal would interrupt a call that is being
	// answered and make it start again, for ever if a timer fires often. With the
	// flag, a signal may do so only until Receive has the call.
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(program)))
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}
