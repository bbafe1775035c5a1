package relay

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/sockio"
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
	udpToServer udpWay = iota // on the flow's connected socket
	udpToClient               // on the listener, with the client's address
)

// udpSends has messages for one sendmmsg(2).
type udpSends struct {
	gso  bool // the kernel has UDP_SEGMENT
	n    int
	iovs int // of all n
	msg  [udpBatchSize]sockio.Message
	iov  [udpBatchSize]unix.Iovec
	send [udpBatchSize]udpSend
}

// udpSend is one message: the content of one slot, or of several slots with
// datagrams of one flow, which the kernel splits again (UDP_SEGMENT). All of
// these have the same length, but the last may be shorter.
type udpSend struct {
	control [sockio.ControlSize]byte // first, to be aligned
	flow    *udpFlow
	iov     int // the first of them
	slots   int
	bytes   int
	segment int  // the length of all datagrams but the last
	cut     bool // the kernel cuts it into segments
	closed  bool // takes no more
}

// udpTally counts the outcomes of messages.
type udpTally struct{ bytes, dropped int }

// add appends the message of a slot to those to send.
func (t *udpSends) add(f *udpFlow, s *udpSlot, way udpWay) {
	iov := &t.iov[t.iovs]
	iov.Base = s.iov.Base
	iov.SetLen(s.len)
	t.iovs++
	if t.merge(f, s, way) {
		return
	}
	m, msg := &t.send[t.n], &t.msg[t.n]
	m.flow, m.iov, m.slots, m.bytes, m.segment = f, t.iovs-1, 1, s.len, s.len
	m.closed = !t.gso || f.whole[way] || s.len == 0
	msg.SetData(iov, 1)
	m.address(msg, way)
	if s.info.Segment > 0 {
		m.segment, m.closed = s.info.Segment, true
		m.setCut(msg, way)
	}
	t.n++
}

// merge adds the datagram of the newest slot to the last message.
func (t *udpSends) merge(f *udpFlow, s *udpSlot, way udpWay) bool {
	if t.n == 0 {
		return false
	}
	m, msg := &t.send[t.n-1], &t.msg[t.n-1]
	if m.closed || m.flow != f || s.info.Segment > 0 || s.len == 0 || s.len > m.segment ||
		m.slots == udpMaxSegments || m.bytes+s.len > udpMaxPayload {
		return false
	}
	if m.slots == 1 {
		m.setCut(msg, way)
	}
	m.slots++
	m.bytes += s.len
	m.closed = s.len < m.segment
	msg.SetData(&t.iov[m.iov], m.slots)
	return true
}

// address sets where a message goes and where it comes from.
func (m *udpSend) address(msg *sockio.Message, way udpWay) {
	m.cut = false
	if way == udpToServer {
		msg.SetAddr(nil)
		msg.SetControl(nil)
		return
	}
	msg.SetAddr(&m.flow.client)
	msg.SetControl(m.flow.source)
}

// setCut makes the kernel split the message into segments.
func (m *udpSend) setCut(msg *sockio.Message, way udpWay) {
	m.cut = true
	control := m.control[:0]
	if way == udpToClient {
		control = append(control, m.flow.source...)
	}
	msg.SetControl(sockio.AppendSegment(control, m.segment))
}

// flush sends the messages. It drops those that the socket does not take at once.
func (t *udpSends) flush(fd int, way udpWay) udpTally {
	var tally udpTally
	retried := false
	for i := 0; i < t.n; {
		n, errno := sockio.SendAll(fd, t.msg[i:t.n])
		for _, m := range t.send[i : i+n] {
			tally.bytes += m.bytes
		}
		i += n
		if errno == 0 {
			retried = false
			continue
		}
		m := &t.send[i]
		switch {
		case m.cut && cannotCut(errno):
			m.flow.whole[way] = true
			tally.add(t.sendApart(fd, i, way))
			i++
		case way == udpToServer && !retried && !isShortage(errno):
			// The ICMP answer to an earlier datagram, reported instead of sending this
			// one.
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

// cannotCut reports whether an error means that a route takes no segments: they
// exceed its MTU (EINVAL, EMSGSIZE), or its device has no checksum offload
// (EIO).
func cannotCut(errno unix.Errno) bool {
	return errno == unix.EINVAL || errno == unix.EMSGSIZE || errno == unix.EIO
}

func isShortage(errno unix.Errno) bool {
	return errno == unix.EAGAIN || errno == unix.ENOBUFS || errno == unix.ENOMEM
}

// sendApart sends the datagrams of a message one by one.
func (t *udpSends) sendApart(fd, i int, way udpWay) (tally udpTally) {
	m, msg := &t.send[i], &t.msg[i]
	m.address(msg, way)
	var one unix.Iovec
	msg.SetData(&one, 1)
	for _, iov := range t.iov[m.iov : m.iov+m.slots] {
		rest := unsafe.Slice(iov.Base, iov.Len)
		for len(rest) > 0 {
			n := min(len(rest), m.segment)
			one.Base = &rest[0]
			one.SetLen(n)
			if _, errno := sockio.SendAll(fd, t.msg[i:i+1]); errno == 0 {
				tally.bytes += n
			} else {
				tally.dropped++
			}
			rest = rest[n:]
		}
	}
	return tally
}
