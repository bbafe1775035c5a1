package relay

import (
	"time"

	"golang.org/x/sys/unix"
)

// flowTable holds the flows of a port, by client and by the time of their last
// use.
type flowTable struct {
	byKey map[flowKey]*udpFlow
	// unanswered and answered are each in the order of the last use.
	unanswered, answered flowList
}

// flowList is a doubly linked list, the longest unused first.
type flowList struct{ front, back *udpFlow }

func (l *flowList) push(f *udpFlow) {
	f.prev, f.next, f.list = l.back, nil, l
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
	f.prev, f.next, f.list = nil, nil, nil
}

func (p *UDPPort) addFlow(f *udpFlow, now time.Duration) {
	if len(p.flows.byKey) >= p.cfg.MaxFlows {
		p.shortage("too many UDP flows; the oldest is ended", "maximum", p.cfg.MaxFlows)
		p.closeFlow(p.flows.oldest())
	}
	p.flows.byKey[f.key] = f
	p.touch(f, now)
	p.stats.active.Store(uint64(len(p.flows.byKey)))
}

// closeFlow ends a flow. Its replies that are still to be sent will be.
func (p *UDPPort) closeFlow(f *udpFlow) {
	f.closed = true
	delete(p.flows.byKey, f.key)
	f.list.remove(f)
	if f.fd >= 0 {
		p.loop.forget(f.token)
		unix.Close(f.fd)
		f.fd = -1
	}
	f.dropHeld()
	p.stats.active.Store(uint64(len(p.flows.byKey)))
}

// touch notes that a flow is used.
func (p *UDPPort) touch(f *udpFlow, now time.Duration) {
	if f.closed {
		return
	}
	f.seen = now
	list, timeout := &p.flows.unanswered, p.cfg.UnansweredTimeout
	if f.answered {
		list, timeout = &p.flows.answered, p.cfg.AnsweredTimeout
	}
	if f.list == list && list.back == f {
		return
	}
	if f.list != list {
		p.expireBy(now + timeout)
	}
	if f.list != nil {
		f.list.remove(f)
	}
	list.push(f)
}

// oldest is the flow to end first: the longest unused, of those without a reply
// if there are any.
func (t *flowTable) oldest() *udpFlow {
	if t.unanswered.front != nil {
		return t.unanswered.front
	}
	return t.answered.front
}

// expire ends the flows that were silent for too long.
func (p *UDPPort) expire() {
	p.expiry = nil
	p.expireList(&p.flows.unanswered, p.cfg.UnansweredTimeout)
	p.expireList(&p.flows.answered, p.cfg.AnsweredTimeout)
}

func (p *UDPPort) expireList(l *flowList, timeout time.Duration) {
	now := p.loop.now()
	for l.front != nil && l.front.seen+timeout <= now {
		p.closeFlow(l.front)
	}
	if l.front != nil {
		p.expireBy(l.front.seen + timeout)
	}
}

// expireBy sets the timer for when a flow may expire. One that is used until then
// lets it fire in vain, once per timeout.
func (p *UDPPort) expireBy(when time.Duration) {
	if p.expiry != nil && p.expiry.when <= when {
		return
	}
	p.loop.stopTimer(p.expiry)
	p.expiry = p.loop.after(when-p.loop.now(), p.expire)
}
