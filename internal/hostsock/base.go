package hostsock

import (
	"errors"
	"math"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
)

// Base is the listening socket of a published TCP port. Other sockets of the
// same user can be put in front of it with SO_REUSEPORT: they get the
// connections while they listen, and the base gets them at once when they do
// not.
//
// It is an IPv6 socket, even for an IPv4 address, to which it is bound in mapped
// form. That way, an IPv4 socket in front gets IPv4 connections, since the kernel
// prefers the more specific socket. An IPv6 socket in front becomes a member of
// the base's reuseport group, and the program of the group selects it, see Steer.
// If the kernel has no IPv6, an IPv4 base is in a group with the IPv4 sockets.
type Base struct {
	FD     int // the caller's to close
	Family int // unix.AF_INET or unix.AF_INET6
	// Addr is the address in the host, in the family that was asked for. With
	// Dual, :: accepts IPv4 connections too.
	Addr netip.AddrPort
	Dual bool
}

// ListenBase is like Listen with a TCP protocol, but opens a single socket, a
// base.
func ListenBase(proto api.Proto, ip string, port int) (Base, error) {
	addrs, err := resolvePort(proto, ip, port)
	if err != nil {
		return Base{}, err
	}
	b := Base{Family: unix.AF_INET6, Addr: netip.AddrPortFrom(addrs[len(addrs)-1], uint16(port)), Dual: len(addrs) == 2}
	err = b.open()
	if errors.Is(err, unix.EAFNOSUPPORT) && addrs[0].Is4() {
		b = Base{Family: unix.AF_INET, Addr: netip.AddrPortFrom(addrs[0], uint16(port))}
		err = b.open()
	}
	if err != nil {
		return Base{}, listenError(proto, ip, port, err)
	}
	return b, nil
}

// open binds before it sets SO_REUSEPORT: otherwise another launcher of the
// same user could bind the same port at the same time.
func (b *Base) open() (err error) {
	if b.FD, err = b.socket(b.Family, b.Family == unix.AF_INET6 && b.v6Only()); err != nil {
		return err
	}
	err = b.bind(b.FD, b.Family)
	if err == nil {
		err = os.NewSyscallError("setsockopt", unix.SetsockoptInt(b.FD, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	}
	if err == nil {
		err = os.NewSyscallError("listen", unix.Listen(b.FD, math.MaxInt32))
	}
	if err != nil {
		unix.Close(b.FD)
	}
	return err
}

// v6Only reports whether the base only accepts IPv6 connections.
func (b *Base) v6Only() bool { return b.Addr.Addr().Is6() && !b.Dual }

// Front returns a bound socket of a family, which takes precedence over the
// base when it listens. Its address is the base's, or its IPv4 half for an IPv4
// socket. Front returns ErrNoFront if the family does not go with the address.
func (b *Base) Front(family int) (int, error) {
	if family == unix.AF_INET && b.v6Only() || family == unix.AF_INET6 && b.Family == unix.AF_INET {
		return -1, ErrNoFront
	}
	fd, err := b.socket(family, family == unix.AF_INET6 && b.v6Only())
	if err != nil {
		return -1, err
	}
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err == nil {
		err = b.bind(fd, family)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// ErrNoFront says that a socket of the given family cannot have a base's address.
var ErrNoFront = errors.New("the port's address is of another family than the server's socket")

func (b *Base) socket(family int, v6Only bool) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if family == unix.AF_INET6 {
		only := 0
		if v6Only {
			only = 1
		}
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only)
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("setsockopt", err)
	}
	return fd, nil
}

// bind binds a socket to the base's address, in the form of the socket's family.
func (b *Base) bind(fd, family int) error {
	addr := b.Addr.Addr()
	if family == unix.AF_INET && b.Dual {
		addr = netip.IPv4Unspecified()
	}
	sa, _, err := sockaddr(addr, int(b.Addr.Port()))
	if err != nil {
		return err
	}
	if v4, ok := sa.(*unix.SockaddrInet4); ok && family == unix.AF_INET6 {
		sa = &unix.SockaddrInet6{Addr: netip.AddrFrom4(v4.Addr).As16(), Port: v4.Port}
	}
	return os.NewSyscallError("bind", bind(fd, sa))
}
