package gvisor

import (
	"slices"

	"rootlesskit/internal/sockio"
)

// sendSegments sends a payload as datagrams of the segment size, or as one if
// that is 0. If the kernel cannot split it (UDP_SEGMENT in udp(7), Linux 4.18,
// does not if a segment needs fragmentation), it sends them one by one.
func (d *dgramSocket) sendSegments(payload []byte, segment int, oob []byte, to *sockio.Addr) error {
	if segment <= 0 || segment >= len(payload) {
		return d.send(payload, oob, to)
	}
	if err := d.send(payload, sockio.AppendSegment(slices.Clip(oob), segment), to); err == nil {
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
