package gvisor

import (
	"golang.org/x/sys/unix"

	"rootlesskit/internal/sockio"
)

// hopLimit returns the control message for sending a datagram with one hop less
// than the namespace gave it, so that traceroute sees the routers outside. It
// returns nil for the usual limit, which is left to the host.
func hopLimit(ttl uint8, is6 bool) []byte {
	if ttl == defaultTTL || ttl <= 1 {
		return nil
	}
	level, kind := unix.SOL_IP, unix.IP_TTL
	if is6 {
		level, kind = unix.SOL_IPV6, unix.IPV6_HOPLIMIT
	}
	return sockio.AppendInt(nil, level, kind, int32(ttl)-1)
}
