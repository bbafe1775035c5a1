// Package seccomp lets one process decide about system calls of others: the
// filter with a listener, its notifications, and Landlock beside it. See
// seccomp(2), seccomp_unotify(2) and landlock(7).
//
// Theory of operation. A thread installs a filter and gets a descriptor; every
// process that it starts from then on has the filter. Where one of them makes a
// system call that the filter asks about, the kernel stops it until the
// holder of the descriptor has answered: go on, or this is the result. What the
// pointers of the call lead to may change while it is looked at. So "go on" is
// no decision about security, except where the register arguments alone decide.
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
	// Isolate is for processes that may hold sockets of another network
	// namespace and must not connect them. connect is asked about, beside bind;
	// and what connects without it is refused: MSG_FASTOPEN (EOPNOTSUPP),
	// TCP_ULP (ENOENT), and io_uring (ENOSYS), which no filter sees into. Landlock, which
	// Install puts in place too, refuses every connect of a TCP socket that the
	// answerer does not make itself.
	Isolate bool `json:"isolate,omitempty"`
}

// Install filters the calling thread, which must be locked, and all that it
// starts from now on. It needs CAP_SYS_ADMIN in the user namespace. The listener
// is close-on-exec and the caller's. It fails with nothing installed, or with
// a listener that nobody has, so that what is asked about fails with ENOSYS: the
// thread is to start nothing then.
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

// HalfInstalledError says that the thread has a filter, and cannot be used.
type HalfInstalledError struct{ Err error }

func (e *HalfInstalledError) Error() string {
	return "a seccomp filter was installed only in part: " + e.Err.Error()
}

func (e *HalfInstalledError) Unwrap() error { return e.Err }

func setFilter(program *unix.SockFprog) (int, error) {
	// Without WAIT_KILLABLE_RECV a signal would interrupt a call that is being
	// answered, and have it begin again, for ever where a timer is quick. With it a
	// signal may do so until Receive has the call, not afterwards.
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(program)))
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}
