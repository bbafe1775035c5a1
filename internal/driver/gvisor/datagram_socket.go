package gvisor

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/sockio"
)

// dgramSocket is a datagram socket of the host.
type dgramSocket struct {
	*sharedFD
	// queued is called for each entry of the socket's error queue; nil if the
	// socket does not queue errors.
	queued func(received)
}

// received is a datagram, or an entry of the error queue, whose address is the
// destination of the datagram in question. It is only valid during a call.
type received struct {
	data []byte
	from *sockio.Addr
	oob  []byte
}

// openDatagrams makes a datagram socket that queues the ICMP errors that it
// receives.
func openDatagrams(socket socketFunc, family, protocol int) (*dgramSocket, error) {
	fd, err := socket(family, unix.SOCK_DGRAM, protocol)
	if err != nil {
		return nil, err
	}
	if err := queueErrors(fd, family); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("IP_RECVERR: %w", err)
	}
	s, err := newSharedFD(fd, "datagrams")
	if err != nil {
		return nil, err
	}
	return &dgramSocket{sharedFD: s}, nil
}

const (
	// maxDatagram is larger than any UDP or ICMP payload.
	maxDatagram = 64 << 10
	// dgramBatch is how many datagrams are received at once.
	dgramBatch = 8
)

// dgramBuffers are places to receive datagrams.
type dgramBuffers struct {
	data [dgramBatch][maxDatagram]byte
	from [dgramBatch]sockio.Addr
	oob  [dgramBatch][128]byte
	iovs [dgramBatch]unix.Iovec
	msgs [dgramBatch]sockio.Message
}

// dgramPool has buffers for the sockets with something to receive: an idle
// socket needs none.
var dgramPool = sync.Pool{New: func() any { return new(dgramBuffers) }}

// receive receives up to count datagrams.
func (b *dgramBuffers) receive(fd, count, flags int) (int, unix.Errno) {
	for i := range count {
		b.iovs[i].Base = &b.data[i][0]
		b.iovs[i].SetLen(maxDatagram)
		b.msgs[i].SetData(&b.iovs[i], 1)
		b.msgs[i].SetRoom(&b.from[i], b.oob[i][:])
	}
	return sockio.ReceiveAll(fd, b.msgs[:count], flags)
}

// at returns the datagram at an index.
func (b *dgramBuffers) at(i int) received {
	m := &b.msgs[i]
	oob := m.Received(&b.from[i], b.oob[i][:])
	return received{data: b.data[i][:m.Len()], from: &b.from[i], oob: oob}
}

// serve receives datagrams until the socket is closed.
func (d *dgramSocket) serve(handle func(received)) {
	_ = d.raw.Read(func(fd uintptr) bool {
		b := dgramPool.Get().(*dgramBuffers)
		defer dgramPool.Put(b)
		for !d.closed() {
			n, errno := b.receive(int(fd), dgramBatch, 0)
			switch errno {
			case 0:
				for i := range n {
					handle(b.at(i))
				}
				if n < dgramBatch {
					return false // no more: the next one wakes it up
				}
			case unix.EAGAIN:
				return false
			default:
				d.drainErrors(int(fd), b)
			}
		}
		return true
	})
}

// drainErrors reads the error queue, after an error of the socket.
func (d *dgramSocket) drainErrors(fd int, b *dgramBuffers) {
	if d.queued == nil {
		return
	}
	for {
		if n, errno := b.receive(fd, 1, unix.MSG_ERRQUEUE); errno != 0 || n == 0 {
			return
		}
		d.queued(b.at(0))
	}
}

// send sends a datagram. A full buffer drops it, as the full queue of a router
// would.
func (d *dgramSocket) send(payload, oob []byte, to *sockio.Addr) error {
	fd, ok := d.acquire()
	if !ok {
		return unix.EBADF
	}
	defer d.release()
	// The error of an earlier datagram is reported once, instead of sending this
	// one; the error queue shows which it was.
	const attempts = 3
	var errno unix.Errno
	for range attempts {
		errno = sockio.SendTo(fd, payload, oob, to)
		switch errno {
		case 0, unix.EAGAIN, unix.ENOBUFS:
			return nil
		case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EMSGSIZE, unix.EPROTO, unix.EACCES:
			if !d.explain(fd) {
				return errno
			}
		default:
			return errno
		}
	}
	return errno
}

// explain reads the error queue, if there is one, and returns true if an
// earlier datagram may have caused the error.
func (d *dgramSocket) explain(fd int) bool {
	if d.queued == nil {
		return false
	}
	b := dgramPool.Get().(*dgramBuffers)
	defer dgramPool.Put(b)
	d.drainErrors(fd, b)
	return true
}
