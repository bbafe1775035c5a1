package fdswap

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/netns"
)

// Socket is a duplicate of a socket of a caller.
type Socket struct {
	FD     int
	Inode  uint64
	Family int
	Type   int
	// Protocol is as in socket(2): MPTCP is another than TCP.
	Protocol int

	// What follows is known of IPv4 and IPv6 sockets alone.

	Cookie uint64 // SO_COOKIE
	Netns  uint64 // SO_NETNS_COOKIE
	V6Only bool
	Bound  bool // to a port
}

// Close closes the duplicate.
func (s *Socket) Close() { unix.Close(s.FD) }

// Internet reports whether it is an IPv4 or IPv6 socket.
func (s *Socket) Internet() bool { return s.Family == unix.AF_INET || s.Family == unix.AF_INET6 }

// TCP reports whether it is a socket of TCP, or of MPTCP.
func (s *Socket) TCP() bool {
	return s.Internet() && s.Type == unix.SOCK_STREAM &&
		(s.Protocol == unix.IPPROTO_TCP || s.Protocol == unix.IPPROTO_MPTCP)
}

// describe reads what a descriptor is; it takes it over.
func describe(fd int) (*Socket, error) {
	s := &Socket{FD: fd}
	var err error
	if s.Inode, err = Inode(fd); err == nil {
		err = s.read()
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Socket) read() (err error) {
	option := func(level, name int) int {
		v, e := unix.GetsockoptInt(s.FD, level, name)
		if e != nil {
			err = os.NewSyscallError("getsockopt", e)
		}
		return v
	}
	s.Family = option(unix.SOL_SOCKET, unix.SO_DOMAIN)
	s.Type = option(unix.SOL_SOCKET, unix.SO_TYPE)
	s.Protocol = option(unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil || !s.Internet() {
		return err
	}
	if s.Family == unix.AF_INET6 {
		s.V6Only = option(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY) != 0
	}
	if err != nil {
		return err
	}
	if s.Bound, err = bound(s.FD); err != nil {
		return err
	}
	if s.Cookie, err = unix.GetsockoptUint64(s.FD, unix.SOL_SOCKET, unix.SO_COOKIE); err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	s.Netns, err = netns.Cookie(s.FD)
	return err
}

// bound reports whether a socket has a port.
func bound(fd int) (bool, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return false, os.NewSyscallError("getsockname", err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return sa.Port != 0, nil
	case *unix.SockaddrInet6:
		return sa.Port != 0, nil
	}
	return false, nil
}

// Bind binds the socket to an address as the caller gave it.
func (s *Socket) Bind(raw []byte) unix.Errno {
	return addressCall(unix.SYS_BIND, s.FD, raw)
}

// addressCall makes bind(2) or connect(2).
func addressCall(number uintptr, fd int, raw []byte) unix.Errno {
	_, _, errno := unix.Syscall(number, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(raw))), uintptr(len(raw)))
	return errno
}

// Inode is the number by which /proc names a socket.
func Inode(fd int) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, os.NewSyscallError("fstat", err)
	}
	return st.Ino, nil
}
