package netns

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/kernel"
)

// The child runs next to a command that is root of its namespaces and may have
// taken over the child. Therefore everything that the child sends is checked.

// errOfHost says that a socket is in this process's own network namespace. A
// hostile child could send one to make this process connect it there.
var errOfHost = errors.New("a socket of the host instead of one of the namespace")

// verify checks that a socket is what was asked for, and is not in this process's
// own network namespace.
func (req SocketRequest) verify(fd int) error {
	for _, option := range []struct{ name, want int }{
		{unix.SO_DOMAIN, req.Family},
		{unix.SO_TYPE, req.Type},
		{unix.SO_PROTOCOL, req.protocol()},
	} {
		got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option.name)
		if err != nil {
			return fmt.Errorf("no socket: %w", err)
		}
		if got != option.want {
			return fmt.Errorf("a socket with %d for the option %d instead of %d", got, option.name, option.want)
		}
	}
	ours, err := own(fd)
	if err == nil && ours {
		err = errOfHost
	}
	return err
}

func (req SocketRequest) protocol() int {
	if req.Type == unix.SOCK_STREAM {
		return unix.IPPROTO_TCP
	}
	return unix.IPPROTO_UDP
}

// own reports whether a socket is in the network namespace of this process.
func own(fd int) (bool, error) {
	ours, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, os.NewSyscallError("socket", err)
	}
	defer unix.Close(ours)
	here, err := Cookie(ours)
	if errors.Is(err, unix.ENOPROTOOPT) { // before Linux 5.14
		return ownByInode(fd)
	}
	if err != nil {
		return false, err
	}
	there, err := Cookie(fd)
	return here == there, err
}

// Cookie identifies the network namespace of a socket: no other one has the same
// cookie, nor will have it later.
func Cookie(fd int) (uint64, error) {
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err == unix.ENOPROTOOPT {
		return 0, kernel.NetnsCookie.Lacks(err)
	}
	return cookie, os.NewSyscallError("getsockopt", err)
}

// ownByInode is own with the namespace's inode. The kernel returns it to a process
// with CAP_NET_ADMIN over the namespace: to the user who made the namespace, but
// not to an ordinary user for that of the host. So a refusal means the host's.
func ownByInode(fd int) (bool, error) {
	ns, err := unix.IoctlRetInt(fd, unix.SIOCGSKNS)
	if err == unix.EPERM {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("asking for the network namespace of a socket: %w", err)
	}
	defer unix.Close(ns)
	var there, here unix.Stat_t
	if err := unix.Fstat(ns, &there); err != nil {
		return false, os.NewSyscallError("fstat", err)
	}
	if err := unix.Stat("/proc/self/ns/net", &here); err != nil {
		return false, os.NewSyscallError("stat", err)
	}
	return there.Ino == here.Ino && there.Dev == here.Dev, nil
}
