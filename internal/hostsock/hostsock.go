// Package hostsock opens the host's side of published ports: listening TCP
// sockets and bound UDP sockets, for every port driver that binds in the
// parent.
//
// An IPv6 socket here is IPV6_V6ONLY, so that 0.0.0.0/tcp4 and ::/tcp6 can share a port.
// To listen on both families, TCP uses one IPv6 socket, which costs half the descriptors
// and shows IPv4 peers in mapped form. UDP uses a socket of each family, since answers
// need the address that the client sent to. Sockets that the program was started with
// are used unchanged, see Inherited. Errors have the wording of Go's net package, which
// reaches clients of the API unchanged.
package hostsock

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/sockio"
)

// Listen opens the sockets of one published port and returns them as
// nonblocking, close-on-exec descriptors, which the caller must close. TCP
// sockets listen, with the backlog that net.core.somaxconn allows.
//
// proto is tcp, tcp4, tcp6, udp, udp4 or udp6. ip is an IP address, which may have a
// zone, or empty for all addresses. tcp and udp on all addresses (an empty ip, 0.0.0.0
// or ::) use both families, but the host may lack one; they take one socket for TCP, and
// one of each family for UDP. As in package net, :: with tcp4 or udp4 means 0.0.0.0.
// port is 1 to 65535.
//
// The error is a *net.OpError, such as "listen tcp4 127.0.0.1:8099: bind:
// address already in use". For a privileged port it is a *PrivilegedPortError,
// unless the process has CAP_NET_BIND_SERVICE in its permitted set; Listen then
// raises the capability only for bind.
func Listen(proto api.Proto, ip string, port int) ([]int, error) {
	addrs, err := resolvePort(proto, ip, port)
	if err != nil {
		return nil, err
	}
	fds, err := openAll(sockType(proto), addrs, port)
	if err != nil {
		return nil, listenError(proto, ip, port, err)
	}
	return fds, nil
}

func resolvePort(proto api.Proto, ip string, port int) ([]netip.Addr, error) {
	addrs, err := resolve(proto, ip)
	if err == nil && (port < 1 || port > math.MaxUint16) {
		err = &net.AddrError{Err: "invalid port", Addr: fmt.Sprint(port)}
	}
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: string(proto), Err: err}
	}
	return addrs, nil
}

func listenError(proto api.Proto, ip string, port int, err error) error {
	err = &net.OpError{Op: "listen", Net: string(proto), Addr: netAddr(proto, ip, port), Err: err}
	return explainPrivileged(err, port)
}

func sockType(proto api.Proto) int {
	if proto.Transport() == api.UDP {
		return unix.SOCK_DGRAM
	}
	return unix.SOCK_STREAM
}

// resolve lists the addresses to bind.
func resolve(proto api.Proto, ip string) ([]netip.Addr, error) {
	if transport := proto.Transport(); transport != api.TCP && transport != api.UDP {
		return nil, net.UnknownNetworkError(string(proto))
	}
	addr := netip.IPv6Unspecified()
	if ip != "" {
		var err error
		if addr, err = netip.ParseAddr(ip); err != nil {
			return nil, &net.AddrError{Err: "invalid IP address", Addr: ip}
		}
		addr = addr.Unmap()
	}
	mismatch := &net.AddrError{Err: "no suitable address found", Addr: ip}
	switch family := proto.Family(); {
	case family == 0 && addr.IsUnspecified():
		return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}, nil
	case family == 4 && addr == netip.IPv6Unspecified():
		return []netip.Addr{netip.IPv4Unspecified()}, nil
	case family == 4 && !addr.Is4(), family == 6 && !addr.Is6():
		return nil, mismatch
	}
	return []netip.Addr{addr}, nil
}

// openAll opens the sockets for the addresses, or none.
func openAll(sockType int, addrs []netip.Addr, port int) ([]int, error) {
	if len(addrs) > 1 && sockType == unix.SOCK_STREAM {
		fd, err := open(sockType, netip.IPv6Unspecified(), port, true)
		if err == nil {
			return []int{fd}, nil
		}
		if !errors.Is(err, unix.EAFNOSUPPORT) {
			return nil, err
		}
		addrs = []netip.Addr{netip.IPv4Unspecified()}
	}
	var fds []int
	var missing error
	for _, addr := range addrs {
		fd, err := open(sockType, addr, port, false)
		if errors.Is(err, unix.EAFNOSUPPORT) && len(addrs) > 1 {
			missing = err // e.g. a kernel started with ipv6.disable=1
			continue
		}
		if err != nil {
			sockio.CloseAll(fds)
			return nil, err
		}
		fds = append(fds, fd)
	}
	if len(fds) == 0 {
		return nil, missing
	}
	return fds, nil
}

// open opens a socket. With dual, :: accepts IPv4 too.
func open(sockType int, addr netip.Addr, port int, dual bool) (int, error) {
	sa, family, err := sockaddr(addr, port)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(family, sockType|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := prepare(fd, family, sockType, sa, dual); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func prepare(fd, family, sockType int, sa unix.Sockaddr, dual bool) error {
	if family == unix.AF_INET6 {
		only := 1
		if dual {
			only = 0
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	if sockType == unix.SOCK_STREAM {
		// Not for UDP, where it would let others receive datagrams of this port.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	if err := bind(fd, sa); err != nil {
		return os.NewSyscallError("bind", err)
	}
	if sockType == unix.SOCK_STREAM {
		// The kernel caps the backlog at net.core.somaxconn (listen(2)).
		if err := unix.Listen(fd, math.MaxInt32); err != nil {
			return os.NewSyscallError("listen", err)
		}
	}
	return nil
}

func sockaddr(addr netip.Addr, port int) (unix.Sockaddr, int, error) {
	if _, err := sockio.Scope(addr); err != nil {
		return nil, 0, err
	}
	sa, family := sockio.Sockaddr(netip.AddrPortFrom(addr, uint16(port)))
	return sa, family, nil
}

// netAddr returns the address for errors, in the form in which it was asked for.
func netAddr(proto api.Proto, ip string, port int) net.Addr {
	addr, _ := netip.ParseAddr(ip)
	if sockType(proto) == unix.SOCK_DGRAM {
		return &net.UDPAddr{IP: addr.AsSlice(), Port: port, Zone: addr.Zone()}
	}
	return &net.TCPAddr{IP: addr.AsSlice(), Port: port, Zone: addr.Zone()}
}
