package gvisor

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/sockio"
)

// networkError is an ICMP error that a socket of the host has received, from
// its error queue (IP_RECVERR in ip(7)).
type networkError struct {
	kind, code byte
	info       uint32     // the MTU, for errors about it
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

// parseNetworkError finds the error among the control messages of an entry. It
// returns false for errors of other origins.
func parseNetworkError(oob []byte) (networkError, bool) {
	for h, data, rest := sockio.NextControl(oob); h != nil; h, data, rest = sockio.NextControl(rest) {
		isError := h.Level == unix.SOL_IP && h.Type == unix.IP_RECVERR ||
			h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_RECVERR
		if !isError || len(data) < errOffenderOffset {
			continue
		}
		offender, _ := sockio.ParseAddr(data[errOffenderOffset:])
		origin := data[errOriginOffset]
		return networkError{
			kind:     data[errTypeOffset],
			code:     data[errCodeOffset],
			info:     binary.NativeEndian.Uint32(data[errInfoOffset:]),
			offender: offender.Addr().Unmap(),
		}, origin == originICMP || origin == originICMP6
	}
	return networkError{}, false
}

// queueErrors makes a datagram socket queue the ICMP errors that it receives.
func queueErrors(fd, family int) error {
	if family == unix.AF_INET {
		return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_RECVERR, 1)
	}
	return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVERR, 1)
}
