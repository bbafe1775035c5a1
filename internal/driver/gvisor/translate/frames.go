package translate

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// Headroom is the free space in front of the headers that Link.Send gets.
const Headroom = 24

const (
	ttl        = 64 // Linux's
	maxOptions = 8  // bytes
	maxHeaders = header.IPv6MinimumSize + header.TCPMinimumSize + maxOptions
	// windowScale is the scale of the windows that are offered.
	windowScale = 7
)

// headers is where the headers of a frame are made, behind the room for the link's.
type headers [Headroom + maxHeaders]byte

// send sends a segment to the namespace. Every segment acknowledges all that was
// received, and offers the window.
func (c *conn) send(flags header.TCPFlags, seq uint32, payload []byte) {
	c.sendWith(flags, seq, nil, payload)
}

func (c *conn) sendWith(flags header.TCPFlags, seq uint32, options, payload []byte) {
	t := c.t
	size := header.TCPMinimumSize + len(options) + len(payload)
	b := t.head[Headroom:]
	ip, sum := header.IPv4MinimumSize, uint32(0)
	if c.flow.v4 {
		sum = c.putIPv4(b, size)
	} else {
		ip = header.IPv6MinimumSize
		sum = c.putIPv6(b, size)
	}
	tcp := b[ip:]
	binary.BigEndian.PutUint16(tcp[0:], c.flow.outsidePort)
	binary.BigEndian.PutUint16(tcp[2:], c.flow.insidePort)
	binary.BigEndian.PutUint32(tcp[4:], seq)
	binary.BigEndian.PutUint32(tcp[8:], c.rcvNxt)
	tcp[12], tcp[13] = uint8(header.TCPMinimumSize+len(options))<<2, uint8(flags)
	binary.BigEndian.PutUint16(tcp[14:], c.offer(flags))
	// The sum of the pseudo header alone: the kernel completes it where it has to.
	binary.BigEndian.PutUint16(tcp[16:], fold(sum+uint32(header.TCPProtocolNumber)+uint32(size)))
	tcp[18], tcp[19] = 0, 0
	copy(tcp[header.TCPMinimumSize:], options)
	head := Headroom + ip + header.TCPMinimumSize + len(options)
	c.acked = c.rcvNxt
	t.cfg.Link.Send(t.head[:head], ip, payload, int(c.mss))
}

// offer returns the window for the header. Its right edge never moves back.
func (c *conn) offer(flags header.TCPFlags) uint16 {
	window := uint32(c.t.room(c))
	if edge := c.rcvNxt + window; int32(edge-c.rcvEdge) > 0 {
		c.rcvEdge = edge
	} else {
		window = c.rcvEdge - c.rcvNxt
	}
	if c.scaled && flags&header.TCPFlagSyn == 0 {
		window >>= windowScale
	}
	return uint16(min(window, 0xffff))
}

// putIPv4 writes the header for a payload of that size, and returns the sum of the
// addresses.
func (c *conn) putIPv4(b []byte, size int) (sum uint32) {
	b[0], b[1] = 0x45, 0
	binary.BigEndian.PutUint16(b[2:], uint16(header.IPv4MinimumSize+size))
	binary.BigEndian.PutUint32(b[4:], 0x4000) // not to be fragmented, so it needs no identification
	b[8], b[9], b[10], b[11] = ttl, uint8(header.TCPProtocolNumber), 0, 0
	copy(b[12:16], c.flow.outside[12:])
	copy(b[16:20], c.flow.inside[12:])
	header.IPv4(b).SetChecksum(^header.IPv4(b).CalculateChecksum())
	return words(b[12:20])
}

func (c *conn) putIPv6(b []byte, size int) (sum uint32) {
	binary.BigEndian.PutUint32(b, 0x60000000)
	binary.BigEndian.PutUint16(b[4:], uint16(size))
	b[6], b[7] = uint8(header.TCPProtocolNumber), ttl
	copy(b[8:24], c.flow.outside[:])
	copy(b[24:40], c.flow.inside[:])
	return words(b[8:40])
}

// words is the sum of 16-bit words.
func words(b []byte) (sum uint32) {
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	return sum
}

func fold(sum uint32) uint16 {
	sum = sum>>16 + sum&0xffff
	return uint16(sum>>16 + sum)
}

// sendSyn sends a SYN, or a SYN-ACK.
func (c *conn) sendSyn(flags header.TCPFlags) {
	mss := c.t.mss(c.flow.v4)
	options := []byte{header.TCPOptionMSS, 4, byte(mss >> 8), byte(mss), header.TCPOptionNOP, header.TCPOptionWS, 3, windowScale}
	if !c.scaled {
		options = options[:4]
	}
	c.sendWith(flags, c.sndNxt-1, options, nil)
}

// sendReset sends a RST with that number.
func (c *conn) sendReset(seq uint32) {
	c.send(header.TCPFlagRst|header.TCPFlagAck, seq, nil)
}

// ack acknowledges at once.
func (c *conn) ack() {
	c.pure = min(c.pure+1, 100)
	c.send(header.TCPFlagAck, c.sndNxt, nil)
}
