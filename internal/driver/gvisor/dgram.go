package gvisor

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// dgramSocket is a datagram socket of the host.
type dgramSocket struct{ *sharedFD }

// openDatagrams makes a datagram socket that queues the ICMP errors it is
// sent.
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
	return &dgramSocket{s}, nil
}

// maxDatagram is larger than any UDP or ICMP payload.
const maxDatagram = 64 << 10

// dgramBuffers is a place to receive one datagram.
type dgramBuffers struct {
	data [maxDatagram]byte
	oob  [256]byte
}

// dgramPool holds buffers for the sockets that have something to receive: an
// idle socket needs none.
var dgramPool = sync.Pool{New: func() any { return new(dgramBuffers) }}

// received is a datagram, or an error of the socket's queue of errors.
type received struct {
	data []byte
	from unix.Sockaddr
	oob  []byte
}

// serve receives datagrams until the socket is closed. failed is told of
// errors of the socket, such as ECONNREFUSED; after each, the socket's queue
// of errors has been read, if there is one, and each entry given to queued.
func (d *dgramSocket) serve(handle func(received), queued func(received)) {
	_ = d.raw.Read(func(fd uintptr) bool {
		b := dgramPool.Get().(*dgramBuffers)
		defer dgramPool.Put(b)
		for !d.closed() {
			r, err := b.receive(int(fd), 0)
			switch err {
			case nil:
				handle(r)
			case unix.EAGAIN:
				// An error in the queue wakes up too.
				b.drainErrors(int(fd), queued)
				return false
			case unix.EINTR:
			default:
				b.drainErrors(int(fd), queued)
			}
		}
		return true
	})
}

func (b *dgramBuffers) receive(fd, flags int) (received, error) {
	n, oobn, _, from, err := unix.Recvmsg(fd, b.data[:], b.oob[:], flags)
	if err != nil {
		return received{}, err
	}
	return received{data: b.data[:n], from: from, oob: b.oob[:oobn]}, nil
}

func (b *dgramBuffers) drainErrors(fd int, queued func(received)) {
	if queued == nil {
		return
	}
	for {
		r, err := b.receive(fd, unix.MSG_ERRQUEUE)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		queued(r)
	}
}

// send sends a datagram, in segments if segment is not 0. A full buffer loses
// it, as a full queue of a router would.
func (d *dgramSocket) send(payload, oob []byte, to unix.Sockaddr) error {
	fd, ok := d.acquire()
	if !ok {
		return unix.EBADF
	}
	defer d.release()
	// An error that is pending from an earlier datagram is reported once, and
	// not this one's.
	for range 2 {
		_, err := unix.SendmsgN(fd, payload, oob, to, unix.MSG_NOSIGNAL)
		switch err {
		case nil, unix.EAGAIN, unix.ENOBUFS:
			return nil
		case unix.EINTR, unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH:
			continue
		}
		return err
	}
	_, err := unix.SendmsgN(fd, payload, oob, to, unix.MSG_NOSIGNAL)
	return err
}
