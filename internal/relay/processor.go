package relay

import (
	"time"

	"rootlesskit/internal/procs"
)

// processor is an additional thread for Go code (see procs.Extra) that a busy loop
// requests, so that other goroutines need not wait for the loop, which seldom
// yields. An idle loop does not have one, because other goroutines would use it
// and become slower (see procs.Single).
type processor struct {
	restore func() // nil: the loop has none
	posts   int    // of the events since the last use
	uses    uint64
	seen    uint64 // uses at the last check
}

// processorIdle is the least time for which a loop is idle before it gives its
// processor back; the most is twice as long. Each change stops all goroutines for
// a moment.
const processorIdle = time.Second

// use is called after each round with the number of events. Posted functions are
// not traffic.
func (p *processor) use(l *loop, events int) {
	events -= p.posts
	p.posts = 0
	if events <= 0 {
		return
	}
	p.uses++
	if p.restore == nil {
		p.restore = procs.Extra()
		p.look(l)
	}
}

// look gives the processor back if the loop has been idle since the last check.
func (p *processor) look(l *loop) {
	if p.uses == p.seen {
		p.giveBack()
		return
	}
	p.seen = p.uses
	l.after(processorIdle, func() { p.look(l) })
}

func (p *processor) giveBack() {
	if p.restore != nil {
		p.restore()
		p.restore = nil
	}
}
