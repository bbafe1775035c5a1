package hostsock

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/caps"
)

// portStartPath holds the first port that needs no privilege
// (ip_unprivileged_port_start in ip(7), Linux 4.11; for IPv6 as well).
const portStartPath = "/proc/sys/net/ipv4/ip_unprivileged_port_start"

// PrivilegedPortError says that only a privileged process may bind a port. Its
// text says how to allow the port.
type PrivilegedPortError struct {
	Port  int
	Start int // the first port that needs no privilege
	Err   error
}

func (e *PrivilegedPortError) Error() string {
	return fmt.Sprintf("cannot expose privileged port %d, you can add 'net.ipv4.ip_unprivileged_port_start=%d' to /etc/sysctl.conf (currently %d), "+
		"or allow it to the program alone with 'setcap cap_net_bind_service=ep %s', or choose a port >= %d: %v",
		e.Port, e.Port, e.Start, executable(), e.Start, e.Err)
}

func (e *PrivilegedPortError) Unwrap() error { return e.Err }

func executable() string {
	path, err := os.Executable()
	if err != nil {
		return "rootlesskit"
	}
	return path
}

// explainPrivileged turns an error for lack of privilege into a
// PrivilegedPortError.
func explainPrivileged(err error, port int) error {
	if !errors.Is(err, unix.EACCES) {
		return err
	}
	start := unprivilegedPortStart()
	if port >= start {
		return err // something else refused, such as SELinux
	}
	return &PrivilegedPortError{Port: port, Start: start, Err: err}
}

func unprivilegedPortStart() int {
	b, _ := os.ReadFile(portStartPath)
	start, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 1024 // the default
	}
	return start
}

// bind binds, and raises CAP_NET_BIND_SERVICE only if it turns out to be
// needed.
func bind(fd int, sa unix.Sockaddr) error {
	err := unix.Bind(fd, sa)
	if err != unix.EACCES {
		return err
	}
	return withBindCapability(func() error { return unix.Bind(fd, sa) })
}

// withBindCapability runs f on a thread with CAP_NET_BIND_SERVICE in effect. It
// returns EACCES if the thread may not have the capability.
func withBindCapability(f func() error) error {
	runtime.LockOSThread()
	own, err := caps.Get()
	if err != nil || !own.Permits(unix.CAP_NET_BIND_SERVICE) {
		runtime.UnlockOSThread()
		return unix.EACCES
	}
	if err := own.With(unix.CAP_NET_BIND_SERVICE).Set(); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("raising CAP_NET_BIND_SERVICE: %w", err)
	}
	result := f()
	if own.Set() == nil {
		runtime.UnlockOSThread()
	} // otherwise the thread stays locked, so that it ends with this goroutine
	return result
}

// DropBindCapability removes CAP_NET_BIND_SERVICE from the effective set of
// every thread. It stays permitted, so that Listen can raise it. A program
// whose file has the capability must call this first.
func DropBindCapability() error {
	own, err := caps.Get()
	if err != nil || !own.Has(unix.CAP_NET_BIND_SERVICE) {
		return err
	}
	if err := own.Without(unix.CAP_NET_BIND_SERVICE).SetAllThreads(); err != nil {
		return fmt.Errorf("dropping CAP_NET_BIND_SERVICE from the effective set: %w", err)
	}
	return nil
}
