package relay

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// udpMaxSegments is the kernel's UDP_MAX_SEGMENTS before Linux 6.9.
	udpMaxSegments = 64
	// udpMaxPayload is the longest UDP payload over IPv4.
	udpMaxPayload = 65507
)

// udpWay is a direction of a flow.
type udpWay int

const (
	udpToServer udpWay = iota // by the flow's connected socket
	udpToClient               // by the listener, with the client's address
)

// udpSends are messages that one sendmmsg(2) sends.
type udpSends struct {
	gso  bool // the kernel has UDP_SEGMENT
	n    int
	iovs int // of all n
	hdr  [udpBatchSize]mmsghdr
	iov  [udpBatchSize]unix.Iovec
	send [udpBatchSize]udpSend
}

// udpSend is one message: the content of one slot, or of several with datagrams
// of one flow, which the kernel cuts apart again (UDP_SEGMENT): all of one
// length but the last, which may be shorter.
type udpSend struct {
	control [udpControlSize]byte // first, to be aligned
	flow    *udpFlow
	iov     int // the first of them
	slots   int
	bytes   int
	segment int  // the length of all datagrams but the last
	closed  bool // takes no more
}

// udpTally counts what became of messages.
type udpTally struct{ bytes, dropped int }

// add puts the message of a slot behind those to be sent.
func (t *udpSends) add(f *udpFlow, s *udpSlot, way udpWay) {
	iov := &t.iov[t.iovs]
	iov.Base = s.iov.Base
	iov.SetLen(s.len)
	t.iovs++
	if t.merge(f, s) {
		return
	}
	m, msg := &t.send[t.n], &t.hdr[t.n].msg
	m.flow, m.iov, m.slots, m.bytes, m.segment = f, t.iovs-1, 1, s.len, s.len
	m.closed = !t.gso || f.whole[way] || s.len == 0
	msg.Iov = iov
	msg.SetIovlen(1)
	m.address(msg, way)
	if s.info.gro > 0 {
		m.segment, m.closed = s.info.gro, true
		m.cut(msg)
	}
	t.n++
}

// merge adds the datagram of the newest slot to the last message.
func (t *udpSends) merge(f *udpFlow, s *udpSlot) bool {
	if t.n == 0 {
		return false
	}
	m, msg := &t.send[t.n-1], &t.hdr[t.n-1].msg
	if m.closed || m.flow != f || s.info.gro > 0 || s.len == 0 || s.len > m.segment ||
		m.slots == udpMaxSegments || m.bytes+s.len > udpMaxPayload {
		return false
	}
	if m.slots == 1 {
		m.cut(msg)
	}
	m.slots++
	m.bytes += s.len
	m.closed = s.len < m.segment
	msg.SetIovlen(m.slots)
	return true
}

// address sets where a message goes and where it comes from.
func (m *udpSend) address(msg *unix.Msghdr, way udpWay) {
	msg.Name, msg.Namelen = nil, 0
	msg.Control = nil
	msg.SetControllen(0)
	if way == udpToServer {
		return
	}
	msg.Name = (*byte)(unsafe.Pointer(&m.flow.client))
	msg.Namelen = m.flow.clientLen
	if n := m.flow.sourceLen; n > 0 {
		msg.Control = &m.flow.source[0]
		msg.SetControllen(n)
	}
}

// cut has the kernel cut the message into segments.
func (m *udpSend) cut(msg *unix.Msghdr) {
	n := 0
	if msg.Control != nil {
		n = copy(m.control[:], m.flow.source[:m.flow.sourceLen])
	}
	n += putUDPSegment(m.control[n:], m.segment)
	msg.Control = &m.control[0]
	msg.SetControllen(n)
}

func (m *udpSend) isCut(msg *unix.Msghdr) bool { return msg.Control == &m.control[0] }

// flush sends the messages. What the socket does not take at once is dropped.
func (t *udpSends) flush(fd int, way udpWay) udpTally {
	var tally udpTally
	retried := false
	for i := 0; i < t.n; {
		n, errno := sendmmsg(fd, t.hdr[i:t.n])
		for _, m := range t.send[i : i+n] {
			tally.bytes += m.bytes
		}
		i += n
		if errno == 0 {
			retried = false
			continue
		}
		m, msg := &t.send[i], &t.hdr[i].msg
		switch {
		case errno == unix.EINTR:
		case m.isCut(msg) && cannotCut(errno):
			m.flow.whole[way] = true
			tally.add(t.sendApart(fd, i, way))
			i++
		case way == udpToServer && !retried && !isShortage(errno):
			// The answer to an earlier datagram (ICMP), told instead of
			// sending this one.
			m.flow.failed(errno)
			retried = true
		default:
			tally.dropped++
			retried = false
			i++
		}
	}
	t.n, t.iovs = 0, 0
	return tally
}

func (t *udpTally) add(u udpTally) {
	t.bytes += u.bytes
	t.dropped += u.dropped
}

// cannotCut tells the errors of a route that takes no segments: they are longer
// than its MTU (EINVAL, EMSGSIZE) or its device has no checksum offload (EIO).
func cannotCut(errno unix.Errno) bool {
	return errno == unix.EINVAL || errno == unix.EMSGSIZE || errno == unix.EIO
}

func isShortage(errno unix.Errno) bool {
	return errno == unix.EAGAIN || errno == unix.ENOBUFS || errno == unix.ENOMEM
}

// sendApart sends the datagrams of a message one by one.
func (t *udpSends) sendApart(fd, i int, way udpWay) (tally udpTally) {
	m, h := &t.send[i], &t.hdr[i]
	m.address(&h.msg, way)
	var one unix.Iovec
	h.msg.Iov = &one
	h.msg.SetIovlen(1)
	for _, iov := range t.iov[m.iov : m.iov+m.slots] {
		rest := unsafe.Slice(iov.Base, iov.Len)
		for len(rest) > 0 {
			n := min(len(rest), m.segment)
			one.Base = &rest[0]
			one.SetLen(n)
			if _, errno := sendmmsg(fd, t.hdr[i:i+1]); errno == 0 {
				tally.bytes += n
			} else {
				tally.dropped++
			}
			rest = rest[n:]
		}
	}
	return tally
}
