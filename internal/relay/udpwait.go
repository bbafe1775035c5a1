package relay

import (
	"bytes"
	"slices"
	"time"
)

// Flows that wait for a socket of the namespace: the pool is refilled from the
// child, and both processes may be out of descriptors for a while. Their first
// datagrams are kept, within bounds.
type waitingFlows struct {
	flows []*udpFlow // oldest first
	bytes int        // held
	retry *timer
}

const (
	maxWaitingFlows  = 256     // of a port
	maxHeldBytes     = 1 << 20 // of a port
	maxHeldDatagrams = 16      // of a flow
	waitRetry        = 5 * time.Millisecond
)

// heldDatagram is a copy of a received message.
type heldDatagram struct {
	data []byte
	info udpInfo
}

// wait puts a flow in the queue for a socket. It reports false when that is full.
func (p *UDPPort) wait(f *udpFlow) bool {
	p.shortage("no sockets of the namespace at hand; new UDP flows wait")
	w := &p.waiting
	if len(w.flows) >= maxWaitingFlows {
		return false
	}
	w.flows = append(w.flows, f)
	if w.retry == nil {
		w.retry = p.loop.after(waitRetry, p.retryWaiting)
	}
	return true
}

// unwait takes a flow that ends out of the queue.
func (p *UDPPort) unwait(f *udpFlow) {
	w := &p.waiting
	if i := slices.Index(w.flows, f); i >= 0 {
		w.flows = slices.Delete(w.flows, i, i+1)
	}
	p.dropHeld(f)
}

func (p *UDPPort) dropHeld(f *udpFlow) {
	for _, d := range f.held {
		p.waiting.bytes -= len(d.data)
	}
	f.held = nil
}

// hold keeps a datagram for when the flow has its socket.
func (f *udpFlow) hold(s *udpSlot) {
	w := &f.port.waiting
	if len(f.held) >= maxHeldDatagrams || w.bytes+s.len > maxHeldBytes {
		f.port.stats.dropped.Add(1)
		return
	}
	w.bytes += s.len
	f.held = append(f.held, heldDatagram{bytes.Clone(s.buf[:s.len]), s.info})
}

// retryWaiting gives sockets to the flows that wait, in their order.
func (p *UDPPort) retryWaiting() {
	p.batch.flush() // the slots are needed
	w := &p.waiting
	w.retry = nil
	for len(w.flows) > 0 {
		f := w.flows[0]
		opened, err := f.open()
		if err != nil {
			p.refuse(f, err)
			p.closeFlow(f)
			continue
		}
		if !opened {
			w.retry = p.loop.after(waitRetry, p.retryWaiting)
			return
		}
		w.flows = slices.Delete(w.flows, 0, 1)
		f.sendHeld()
	}
}

func (f *udpFlow) sendHeld() {
	b := f.port.batch
	for i, d := range f.held {
		s := &b.slots[i]
		s.len, s.info = copy(s.buf[:], d.data), d.info
		b.tx.add(f, s, udpToServer)
	}
	f.port.dropHeld(f)
	f.port.count(b.tx.flush(f.fd, udpToServer), udpToServer)
}
