package hostsock

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/sockio"
)

// Inherited has listening sockets that the program was started with, such as
// those of systemd's socket activation. A port uses the inherited socket that
// is bound to its address, instead of a new one, and so needs no privilege.
//
// The other side keeps its copy. So after a port is closed, the kernel still
// queues its connections, and the port can be opened again with this process's
// copy.
//
// A nil *Inherited has no sockets.
type Inherited struct {
	mu      sync.Mutex
	sockets []inheritedSocket
}

type inheritedSocket struct {
	fd       int
	sockType int
	bound    netip.AddrPort
	dual     bool // [::] for both families
	// takenBy is the port that the socket serves; empty for none.
	takenBy string
}

// NewInherited picks the TCP and UDP sockets among fds. The caller keeps the
// descriptors, and closes them after the last use of the result.
func NewInherited(fds []int) *Inherited {
	in := &Inherited{}
	for _, fd := range fds {
		if s, ok := describe(fd); ok {
			in.sockets = append(in.sockets, s)
		}
	}
	return in
}

// describe examines a descriptor. It returns false unless it is a listening TCP
// socket or a bound UDP socket.
func describe(fd int) (inheritedSocket, bool) {
	s := inheritedSocket{fd: fd}
	option := func(level, name int) int {
		n, err := unix.GetsockoptInt(fd, level, name)
		if err != nil {
			return -1
		}
		return n
	}
	s.sockType = option(unix.SOL_SOCKET, unix.SO_TYPE)
	switch option(unix.SOL_SOCKET, unix.SO_PROTOCOL) {
	case unix.IPPROTO_TCP:
		if option(unix.SOL_SOCKET, unix.SO_ACCEPTCONN) != 1 {
			return s, false
		}
	case unix.IPPROTO_UDP:
	default:
		return s, false
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return s, false
	}
	s.bound = sockio.FromSockaddr(sa)
	if sa, ok := sa.(*unix.SockaddrInet6); ok {
		s.dual = s.bound.Addr().IsUnspecified() && option(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY) == 0
		if iface, err := net.InterfaceByIndex(int(sa.ZoneId)); sa.ZoneId != 0 && err == nil {
			s.bound = netip.AddrPortFrom(s.bound.Addr().WithZone(iface.Name), s.bound.Port())
		}
	}
	return s, s.bound.Port() != 0
}

// Sockets are the sockets of one port.
type Sockets struct {
	// FDs are nonblocking, close-on-exec descriptors, which the caller must close.
	FDs []int
	// Shared says that another process has the sockets too: they must be closed,
	// but not shut down.
	Shared bool
}

// Listen is like the function Listen, except that it uses inherited sockets on
// the port's addresses instead of new ones. A port on all addresses uses the
// inherited sockets and no others: an IPv6 socket for both families is enough,
// and so is a socket of one family.
func (in *Inherited) Listen(proto api.Proto, ip string, port int) (Sockets, error) {
	sockets, err := in.Take(proto, ip, port)
	if len(sockets.FDs) > 0 || err != nil {
		return sockets, err
	}
	fds, err := Listen(proto, ip, port)
	return Sockets{FDs: fds}, err
}

// Take returns the inherited sockets for a port, if any.
func (in *Inherited) Take(proto api.Proto, ip string, port int) (Sockets, error) {
	fds, err := in.take(proto, ip, port)
	return Sockets{FDs: fds, Shared: true}, err
}

func (in *Inherited) take(proto api.Proto, ip string, port int) ([]int, error) {
	addrs, err := resolve(proto, ip)
	if in == nil || err != nil {
		return nil, nil // Listen returns the error
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	name := fmt.Sprintf("%s %s %d", proto, ip, port)
	var fds []int
	for i := range in.sockets {
		s := &in.sockets[i]
		if !s.serves(sockType(proto), addrs, port) || s.takenBy != "" && s.takenBy != name {
			continue
		}
		fd, err := duplicate(s.fd)
		if err != nil {
			sockio.CloseAll(fds)
			return nil, fmt.Errorf("taking the inherited socket %s: %w", s.bound, err)
		}
		s.takenBy = name
		fds = append(fds, fd)
	}
	return fds, nil
}

func (s *inheritedSocket) serves(sockType int, addrs []netip.Addr, port int) bool {
	return s.sockType == sockType && int(s.bound.Port()) == port && slices.Contains(addrs, s.bound.Addr()) &&
		(!s.dual || len(addrs) == 2)
}

func duplicate(fd int) (int, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("fcntl", err)
	}
	if err := unix.SetNonblock(dup, true); err != nil {
		unix.Close(dup)
		return -1, os.NewSyscallError("fcntl", err)
	}
	return dup, nil
}

// Seal returns the descriptors that serve ports. From now on, the others are
// not used: they belong to someone else.
func (in *Inherited) Seal() []int {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.sockets = slices.DeleteFunc(in.sockets, func(s inheritedSocket) bool { return s.takenBy == "" })
	var fds []int
	for _, s := range in.sockets {
		fds = append(fds, s.fd)
	}
	return fds
}
