package hostsock

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// portStartPath holds the first port that needs no privilege
// (ip_unprivileged_port_start in ip(7), Linux 4.11; for IPv6 as well).
const portStartPath = "/proc/sys/net/ipv4/ip_unprivileged_port_start"

// PrivilegedPortError is the refusal of a port that only a privileged process
// may bind. Its text says how to allow the port.
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

// explainPrivileged turns a refusal for want of privilege into a
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

// bind binds, with CAP_NET_BIND_SERVICE raised only where it turns out to be
// needed.
func bind(fd int, sa unix.Sockaddr) error {
	err := unix.Bind(fd, sa)
	if err != unix.EACCES {
		return err
	}
	return withBindCapability(func() error { return unix.Bind(fd, sa) })
}

const bindCapability = uint32(1) << unix.CAP_NET_BIND_SERVICE

// withBindCapability runs f on a thread that has CAP_NET_BIND_SERVICE in
// effect. It is EACCES where the thread is not permitted to have it.
func withBindCapability(f func() error) error {
	runtime.LockOSThread()
	caps, err := getCaps()
	if err != nil || caps[0].Permitted&bindCapability == 0 {
		runtime.UnlockOSThread()
		return unix.EACCES
	}
	raised := caps
	raised[0].Effective |= bindCapability
	if err := setCaps(raised); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("raising CAP_NET_BIND_SERVICE: %w", err)
	}
	result := f()
	if setCaps(caps) == nil {
		runtime.UnlockOSThread()
	} // else the thread stays locked, so that it ends with this goroutine
	return result
}

// DropBindCapability takes CAP_NET_BIND_SERVICE out of the effective set of
// every thread. It stays permitted, for Listen to raise. A program whose file
// carries the capability calls this first.
//
// It needs a build without cgo (see syscall.AllThreadsSyscall).
func DropBindCapability() error {
	caps, err := getCaps()
	if err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	if caps[0].Effective&bindCapability == 0 {
		return nil
	}
	caps[0].Effective &^= bindCapability
	hdr := capHeader()
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&caps[0])), 0)
	if errno != 0 {
		return fmt.Errorf("dropping CAP_NET_BIND_SERVICE from the effective set: %w", errno)
	}
	return nil
}

// capSets is the payload of capget(2) and capset(2), version 3: capabilities
// 0 to 31, then 32 to 63. The calls are about the calling thread.
type capSets = [2]unix.CapUserData

func capHeader() unix.CapUserHeader {
	return unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
}

func getCaps() (capSets, error) {
	var caps capSets
	hdr := capHeader()
	err := unix.Capget(&hdr, &caps[0])
	return caps, err
}

func setCaps(caps capSets) error {
	hdr := capHeader()
	return unix.Capset(&hdr, &caps[0])
}
