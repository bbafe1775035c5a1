package relay

import (
	"golang.org/x/sys/unix"

	"rootlesskit/internal/sockio"
)

const (
	udpBatchSize = 64
	// udpSlotSize is enough for the longest message: a datagram of 65,507 bytes,
	// or several with as many bytes that UDP_GRO has combined.
	udpSlotSize = 64 << 10
)

// udpBatch moves the datagrams of a loop's ports: it has slots to receive into,
// and the messages that are sent from them. It has one use at a time: either the
// round of a listener, which ends within its handler, or replies. These are
// collected by the handlers of all ready flows, and leave with flush at the end
// of the loop's round, or when the slots are needed.
type udpBatch struct {
	gro     bool         // the kernel has UDP_GRO
	replies *udpListener // whose replies are in the batch; nil: none
	used    int          // slots with replies

	slots [udpBatchSize]udpSlot
	rx    [udpBatchSize]sockio.Message
	tx    udpSends
}

// udpSlot has a received message.
type udpSlot struct {
	control [sockio.ControlSize]byte // first, to be aligned
	buf     *[udpSlotSize]byte
	iov     unix.Iovec

	from sockio.Addr
	len  int
	info sockio.Info
	next int // slot of the same flow in a listener's round; -1: none
}

// udpLoop has what the UDP ports of a loop share.
type udpLoop struct {
	batch *udpBatch // nil until the first port
}

// shared returns the batch, which it makes for the first port.
func (u *udpLoop) shared() *udpBatch {
	if u.batch == nil {
		u.batch = newUDPBatch()
	}
	return u.batch
}

func newUDPBatch() *udpBatch {
	b := &udpBatch{}
	b.gro, b.tx.gso = probeUDPOffloads()
	buf := make([]byte, udpBatchSize*udpSlotSize)
	for i := range b.slots {
		s := &b.slots[i]
		s.buf = (*[udpSlotSize]byte)(buf[i*udpSlotSize:])
		s.iov.Base = &s.buf[0]
		s.iov.SetLen(udpSlotSize)
		b.rx[i].SetData(&s.iov, 1)
		b.rx[i].SetRoom(&s.from, s.control[:])
	}
	return b
}

// probeUDPOffloads finds out whether the kernel has UDP_GRO (Linux 5.0) and
// UDP_SEGMENT (Linux 4.18).
func probeUDPOffloads() (gro, gso bool) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, false
	}
	defer unix.Close(fd)
	gro = unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1) == nil
	gso = unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT, 0) == nil
	return gro, gso
}

// enableGRO lets a socket receive several datagrams in one message.
func (b *udpBatch) enableGRO(fd int) {
	if b.gro && b.tx.gso { // what arrives in one message can leave in one
		_ = unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1)
	}
}

// receive receives up to limit messages of a socket into the slots from first
// on, and returns their number.
func (b *udpBatch) receive(fd, first, limit int) (int, unix.Errno) {
	n, errno := sockio.ReceiveAll(fd, b.rx[first:first+limit], 0)
	for i := first; i < first+n; i++ {
		m, s := &b.rx[i], &b.slots[i]
		s.len = m.Len()
		s.info = sockio.ParseInfo(m.Received(&s.from, s.control[:]))
		m.SetRoom(&s.from, s.control[:]) // for the next one
	}
	return n, errno
}

// collect receives the datagrams that have arrived for a flow into the replies.
func (b *udpBatch) collect(f *udpFlow) (int, unix.Errno) {
	// One busy flow leaves room for others.
	const most = udpBatchSize / 2
	if b.replies != f.via || b.used == udpBatchSize {
		b.flush()
		b.replies = f.via
		f.port.loop.again(f.via.token) // which flushes
	}
	n, errno := b.receive(f.fd, b.used, min(udpBatchSize-b.used, most))
	for i := range n {
		b.tx.add(f, &b.slots[b.used+i], udpToClient)
	}
	b.used += n
	return n, errno
}

// flush sends the replies.
func (b *udpBatch) flush() {
	if b.replies == nil {
		return
	}
	l := b.replies
	b.replies, b.used = nil, 0
	now := l.port.loop.now()
	for i := range b.tx.n {
		f := b.tx.send[i].flow
		f.sure = now
		l.port.touch(f, now)
	}
	l.port.count(b.tx.flush(l.fd, udpToClient), udpToClient)
}
