package sockio

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Addr is an IP socket's address in the kernel's form: a struct sockaddr_in or
// sockaddr_in6.
type Addr struct {
	raw  unix.RawSockaddrInet6 // the longer of the two structs
	size uint32
}

// room is the size of an Addr for the kernel to write to.
func room() Addr { return Addr{size: unix.SizeofSockaddrInet6} }

// AddrOf returns an address in the kernel's form. A mapped IPv4 address becomes
// IPv4; a zone that the host does not have is left out.
func AddrOf(a netip.AddrPort) Addr {
	var s Addr
	// In both families the port comes after the family.
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&s.raw.Port))[:], a.Port())
	if ip := a.Addr().Unmap(); ip.Is4() {
		s.raw.Family = unix.AF_INET
		s.v4().Addr = ip.As4()
		s.size = unix.SizeofSockaddrInet4
		return s
	}
	s.raw.Family = unix.AF_INET6
	s.raw.Addr = a.Addr().As16()
	s.raw.Scope_id, _ = Scope(a.Addr())
	s.size = unix.SizeofSockaddrInet6
	return s
}

func (a *Addr) v4() *unix.RawSockaddrInet4 { return (*unix.RawSockaddrInet4)(unsafe.Pointer(&a.raw)) }

// Port returns the port.
func (a *Addr) Port() uint16 {
	return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&a.raw.Port))[:])
}

// As16 returns the IP address, an IPv4 address in mapped form.
func (a *Addr) As16() [16]byte {
	if a.raw.Family == unix.AF_INET6 {
		return a.raw.Addr
	}
	return Mapped(a.v4().Addr)
}

// Scope returns the interface of an IPv6 address; 0 if it has none.
func (a *Addr) Scope() uint32 {
	if a.raw.Family == unix.AF_INET6 {
		return a.raw.Scope_id
	}
	return 0
}

// AddrPort returns the address without its scope. A mapped IPv4 address becomes IPv4.
func (a *Addr) AddrPort() netip.AddrPort {
	if a.raw.Family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4(a.v4().Addr), a.Port())
	}
	return netip.AddrPortFrom(netip.AddrFrom16(a.raw.Addr).Unmap(), a.Port())
}

// Mapped returns an IPv4 address in mapped form.
func Mapped(v4 [4]byte) [16]byte {
	return [16]byte{10: 0xff, 11: 0xff, 12: v4[0], 13: v4[1], 14: v4[2], 15: v4[3]}
}

// Family returns the family of sockets for an address, unix.AF_INET or unix.AF_INET6.
func Family(a netip.Addr) int {
	if a.Unmap().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// Sockaddr is like AddrOf, for package unix, and returns the family too.
func Sockaddr(a netip.AddrPort) (unix.Sockaddr, int) {
	if ip := a.Addr().Unmap(); ip.Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: ip.As4()}, unix.AF_INET
	}
	scope, _ := Scope(a.Addr())
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: scope}, unix.AF_INET6
}

// FromSockaddr is the inverse of Sockaddr, without the scope. It returns the
// zero AddrPort for other families.
func FromSockaddr(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// ParseAddr parses a struct sockaddr_in or sockaddr_in6, and nothing else. Like
// the kernel, it accepts the latter without sin6_scope_id. A mapped IPv4 address
// stays in its mapped form.
func ParseAddr(b []byte) (netip.AddrPort, bool) {
	if len(b) < 2 {
		return netip.AddrPort{}, false
	}
	switch family := binary.NativeEndian.Uint16(b); {
	case family == unix.AF_INET && len(b) >= unix.SizeofSockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:])), true
	case family == unix.AF_INET6 && len(b) >= unix.SizeofSockaddrInet6-4:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])), binary.BigEndian.Uint16(b[2:])), true
	}
	return netip.AddrPort{}, false
}

// Scope returns the interface of a scoped address, whose zone is a name or a
// number; 0 if it has none.
func Scope(a netip.Addr) (uint32, error) {
	zone := a.Zone()
	if zone == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	iface, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, fmt.Errorf("zone %q: %w", zone, err)
	}
	return uint32(iface.Index), nil
}
