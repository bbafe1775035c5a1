package relay

import (
	"time"

	"golang.org/x/sys/unix"
)

// flowTable has the flows of a port, by client and by the time of their last
// use.
type flowTable struct {
	byKey map[flowKey]*udpFlow
	byUse flowList
}

// flowList is a doubly linked list, starting with the flow that has been silent longest.
type flowList struct{ front, back *udpFlow }

func (l *flowList) push(f *udpFlow) {
	f.prev, f.next = l.back, nil
	if l.back != nil {
		l.back.next = f
	} else {
		l.front = f
	}
	l.back = f
}

func (l *flowList) remove(f *udpFlow) {
	if f.prev != nil {
		f.prev.next = f.next
	} else {
		l.front = f.next
	}
	if f.next != nil {
		f.next.prev = f.prev
	} else {
		l.back = f.prev
	}
	f.prev, f.next = nil, nil
}

// addFlow adds a flow. If there is no room, the flow that has been silent longest
// ends. The new one was used just now, so it has time to be answered.
func (p *UDPPort) addFlow(f *udpFlow, now time.Duration) {
	if n := len(p.flows.byKey); p.cfg.MaxFlows > 0 && n >= p.cfg.MaxFlows {
		p.evict(p.cfg.MaxFlows)
	} else if full, most := p.budget.full(p); full == p {
		p.evict(most)
	} else if full != nil {
		full.loop.mail.Post(func() { full.evict(most) })
	}
	p.flows.byKey[f.key] = f
	p.flows.byUse.push(f)
	f.seen = now
	p.expireBy(now + p.cfg.MaxSilence)
	p.stats.active.Store(uint64(len(p.flows.byKey)))
	p.budget.flows.Add(1)
}

// evict ends the flow that has been silent longest, because the maximum is reached.
func (p *UDPPort) evict(most int) {
	if f := p.flows.byUse.front; f != nil {
		p.shortage("too many UDP flows; the longest silent is ended", "maximum", most)
		p.closeFlow(f)
	}
}

// closeFlow ends a flow of the table. Replies that are waiting to be sent will
// still be sent.
func (p *UDPPort) closeFlow(f *udpFlow) {
	f.closed = true
	delete(p.flows.byKey, f.key)
	p.flows.byUse.remove(f)
	f.closeSocket()
	f.dropHeld()
	p.stats.active.Store(uint64(len(p.flows.byKey)))
	p.budget.flows.Add(-1)
}

func (f *udpFlow) closeSocket() {
	if f.fd >= 0 {
		f.port.loop.set.Forget(f.token)
		unix.Close(f.fd)
		f.fd = -1
	}
}

// touch records that a flow is used.
func (p *UDPPort) touch(f *udpFlow, now time.Duration) {
	if f.closed {
		return
	}
	f.seen = now
	if p.flows.byUse.back != f {
		p.flows.byUse.remove(f)
		p.flows.byUse.push(f)
	}
}

// expire ends the flows that have been silent for too long.
func (p *UDPPort) expire() {
	p.expiry = nil
	now := p.loop.now()
	for f := p.flows.byUse.front; f != nil; f = p.flows.byUse.front {
		if end := f.seen + p.cfg.MaxSilence; end > now {
			p.expireBy(end)
			return
		}
		p.closeFlow(f)
	}
}

// expireBy sets the timer for when a flow may expire. If the flow is used until
// then, the timer fires in vain, once per MaxSilence.
func (p *UDPPort) expireBy(when time.Duration) {
	if p.expiry == nil {
		p.expiry = p.loop.after(when-p.loop.now(), p.expire)
	}
}
