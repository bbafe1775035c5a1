package gvisor

import (
	"unsafe"

	"encoding/binary"

	"golang.org/x/sys/unix"
)

// sendSegments sends a payload as datagrams of the size of a segment, or as
// one if that is 0. Where the kernel cannot cut it (UDP_SEGMENT in udp(7),
// Linux 4.18: not if a segment needs fragmentation), they are sent one by one.
func (d *dgramSocket) sendSegments(payload []byte, segment int, oob []byte, to *socketAddr) error {
	if segment <= 0 || segment >= len(payload) {
		return d.send(payload, oob, to)
	}
	if err := d.send(payload, appendSegmentSize(oob, segment), to); err == nil {
		return nil
	}
	for len(payload) > 0 {
		n := min(segment, len(payload))
		if err := d.send(payload[:n], oob, to); err != nil {
			return err
		}
		payload = payload[n:]
	}
	return nil
}

// appendSegmentSize appends the control message UDP_SEGMENT.
func appendSegmentSize(oob []byte, segment int) []byte {
	b := make([]byte, len(oob)+unix.CmsgSpace(2))
	copy(b, oob)
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[len(oob)]))
	h.Level, h.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(b[len(oob)+unix.CmsgLen(0):], uint16(segment))
	return b
}
