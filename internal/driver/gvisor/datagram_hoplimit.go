package gvisor

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hopLimit is the control message that sends a datagram with one hop less than
// the namespace gave it, so that traceroute sees the routers of the world. It
// is nil for the usual limit, which is left to the host.
func hopLimit(ttl uint8, is6 bool) []byte {
	if ttl == defaultTTL || ttl <= 1 {
		return nil
	}
	level, kind := unix.SOL_IP, unix.IP_TTL
	if is6 {
		level, kind = unix.SOL_IPV6, unix.IPV6_HOPLIMIT
	}
	return intControl(level, kind, int32(ttl)-1)
}

// intControl is a control message that holds an int.
func intControl(level, kind int, value int32) []byte {
	b := make([]byte, unix.CmsgSpace(4))
	h := (*unix.Cmsghdr)(unsafe.Pointer(unsafe.SliceData(b)))
	h.Level, h.Type = int32(level), int32(kind)
	h.SetLen(unix.CmsgLen(4))
	binary.NativeEndian.PutUint32(b[unix.CmsgLen(0):], uint32(value))
	return b
}
