package gvisor

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// networkError is an ICMP error that a socket of the host was sent, from its
// queue of errors (IP_RECVERR in ip(7)).
type networkError struct {
	kind, code byte
	info       uint32     // the MTU, where that is the matter
	offender   netip.Addr // who sent it
}

// The layout of struct sock_extended_err (linux/errqueue.h), which the
// offender's address follows.
const (
	errOriginOffset   = 4
	errTypeOffset     = 5
	errCodeOffset     = 6
	errInfoOffset     = 8
	errOffenderOffset = 16

	originICMP  = 2 // SO_EE_ORIGIN_ICMP
	originICMP6 = 3 // SO_EE_ORIGIN_ICMP6
)

// parseNetworkError finds the error among the control messages of an entry.
// It is false for errors of other origins.
func parseNetworkError(oob []byte) (networkError, bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return networkError{}, false
	}
	for _, m := range messages {
		isError := m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_RECVERR ||
			m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		if !isError || len(m.Data) < errOffenderOffset {
			continue
		}
		origin := m.Data[errOriginOffset]
		return networkError{
			kind:     m.Data[errTypeOffset],
			code:     m.Data[errCodeOffset],
			info:     binary.NativeEndian.Uint32(m.Data[errInfoOffset:]),
			offender: parseSockaddr(m.Data[errOffenderOffset:]),
		}, origin == originICMP || origin == originICMP6
	}
	return networkError{}, false
}

// parseSockaddr reads the address of a struct sockaddr_in or sockaddr_in6.
func parseSockaddr(b []byte) netip.Addr {
	if len(b) < 2 {
		return netip.Addr{}
	}
	switch family := binary.NativeEndian.Uint16(b); {
	case family == unix.AF_INET && len(b) >= unix.SizeofSockaddrInet4:
		return netip.AddrFrom4([4]byte(b[4:8]))
	case family == unix.AF_INET6 && len(b) >= unix.SizeofSockaddrInet6-4:
		return netip.AddrFrom16([16]byte(b[8:24])).Unmap()
	}
	return netip.Addr{}
}

// queueErrors makes a datagram socket queue the ICMP errors that it is sent.
func queueErrors(fd, family int) error {
	if family == unix.AF_INET {
		return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_RECVERR, 1)
	}
	return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVERR, 1)
}
