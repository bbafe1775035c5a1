package relay

import (
	"bytes"
	"errors"

	"rootlesskit/internal/sockio"
)

// These flows wait for a socket of the namespace: the child has to refill the
// pool, and both processes may be out of descriptors for a while. Their first
// datagrams are kept, within bounds. A flow that ends while it waits still counts
// until the pool has answered, so that short-lived flows cannot pile up there.
type waitingFlows struct {
	flows int // that wait for the pool
	bytes int // held
}

const (
	maxWaitingFlows = 256     // of a port
	maxHeldBytes    = 1 << 20 // of a port
	// maxHeldDatagrams of a flow are as many as it can send at once, and
	// maxHeldOfFlow about as much as a socket of its own would take.
	maxHeldDatagrams = udpBatchSize
	maxHeldOfFlow    = 256 << 10
)

// heldDatagram is a copy of a received message.
type heldDatagram struct {
	data []byte
	info sockio.Info
}

// wait asks the pool for a socket. It returns false if too many flows wait.
func (f *udpFlow) wait(pool *Pool) bool {
	p := f.port
	p.shortage("no sockets of the namespace at hand; new UDP flows wait")
	if p.waiting.flows >= maxWaitingFlows {
		return false
	}
	p.waiting.flows++
	pool.wait(&waiter{loop: p.loop, got: func(fd int) { f.gotSocket(pool, fd) }})
	return true
}

// resolve asks for the route of a flow, which waits as for a socket. It returns
// false if too many flows wait.
func (f *udpFlow) resolve() bool {
	p := f.port
	if p.waiting.flows >= maxWaitingFlows {
		return false
	}
	p.waiting.flows++
	client, local, router := f.key.clientAddr(), f.via.asked(&f.key), p.cfg.Router
	go func() {
		route := router.Resolve(client, local)
		p.loop.mail.Post(func() { f.resolved(route) })
	}()
	return true
}

// resolved is the answer.
func (f *udpFlow) resolved(route Route) {
	p := f.port
	p.waiting.flows--
	if f.closed {
		return
	}
	f.take(route)
}

// take gives a flow without a socket its route, and sends its held datagrams there.
func (f *udpFlow) take(route Route) {
	p := f.port
	f.route = route
	ok, err := f.openRouted()
	switch {
	case err != nil || !ok:
		p.closeFlow(f)
		if err != nil {
			p.refuse(f, err)
		}
	case f.fd >= 0: // otherwise it waits for a socket
		f.opened()
	}
}

var errPoolEnded = errors.New("no more sockets of the namespace")

// gotSocket is the pool's answer.
func (f *udpFlow) gotSocket(pool *Pool, fd int) {
	p := f.port
	p.waiting.flows--
	switch {
	case f.closed:
		if fd >= 0 {
			pool.putBack(fd)
		}
	case fd < 0:
		p.closeFlow(f)
		p.refuse(f, errPoolEnded)
	default:
		if err := f.connect(fd); err != nil {
			p.refuse(f, err)
			p.closeFlow(f)
			return
		}
		f.opened()
	}
}

// hold keeps a datagram until the flow has its socket, or its route is certain.
// It returns false if there is no room.
func (f *udpFlow) hold(s *udpSlot) bool {
	w := &f.port.waiting
	if len(f.held) >= maxHeldDatagrams || f.heldBytes+s.len > maxHeldOfFlow || w.bytes+s.len > maxHeldBytes {
		return false
	}
	w.bytes += s.len
	f.heldBytes += s.len
	f.held = append(f.held, heldDatagram{bytes.Clone(s.buf[:s.len]), s.info})
	return true
}

func (f *udpFlow) sendHeld() {
	b := f.port.batch
	b.flush() // the slots are needed
	for i, d := range f.held {
		s := &b.slots[i]
		s.len, s.info = copy(s.buf[:], d.data), d.info
		b.tx.add(f, s, udpToServer)
	}
	first := f.held
	f.dropHeld()
	if len(first) > 0 && f.guesses() {
		f.held, f.heldBytes = first[:1:1], len(first[0].data)
		f.port.waiting.bytes += f.heldBytes
	}
	if b.tx.n > 0 {
		f.owed = true
		f.port.count(b.tx.flush(f.fd, udpToServer), udpToServer)
	}
}

func (f *udpFlow) dropHeld() {
	f.port.waiting.bytes -= f.heldBytes
	f.held, f.heldBytes, f.holds = nil, 0, false
}
