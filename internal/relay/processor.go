package relay

import (
	"time"

	"rootlesskit/internal/procs"
)

// processor is a loop's own among those that run Go code, beside those of the
// other goroutines, which must not wait for a busy loop: it gives its processor
// away only now and then. A loop that is idle has none, as others who then took it
// would be disturbed (see procs.Single).
type processor struct {
	restore func() // nil: the loop has none
	posts   int    // of the events since the last use
	uses    uint64
	seen    uint64 // uses at the last look
}

// processorIdle is how long a loop is idle at least before it gives its processor
// back, and at most twice of it: each change stops all goroutines for a moment.
const processorIdle = time.Second

// use is called after a round with so many events. What was posted is no traffic.
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

// look gives the processor back if the loop was idle since the last look.
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
