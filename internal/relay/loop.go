package relay

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/eventloop"
)

// A loop is one goroutine around one epoll instance. The goroutine owns
// everything that is registered with the loop. Other goroutines hand work to it
// through its mailbox.
//
//	wait -> handlers of the events -> resumed handlers -> timers
//
// Handlers must not block and should not run for long: a handler with more work
// than its budget calls again and returns.
//
// Only the blocking wait informs Go's scheduler, so that neither GC nor other
// goroutines wait for an idle loop. The goroutine is not locked to a thread
// (LockOSThread): the scheduler would have to switch threads whenever it preempts
// the goroutine.
type loop struct {
	set    *eventloop.Set
	mail   *eventloop.Mailbox // functions that wait for the loop
	timers eventloop.Timers   // few: a connection without problems has none
	start  time.Time
	resume []eventloop.Token // handlers to call again in this round
	spare  []eventloop.Token // the other half of the double buffer of resume
	proc   processor

	// tcp and udp have what the handlers of a protocol share; the loop itself uses
	// neither.
	tcp tcpLoop
	udp udpLoop

	stop bool // used by the loop only
	done chan struct{}
}

// yieldEvery is the number of rounds after which a loop yields to Go's
// scheduler. Otherwise the scheduler would consider it a goroutine that runs for
// too long, and after 10 ms would take its processor away in every wait.
const yieldEvery = 128

func newLoop() (*loop, error) {
	set, err := eventloop.NewSet()
	if err != nil {
		return nil, err
	}
	mail, err := eventloop.NewMailbox()
	if err != nil {
		set.Close()
		return nil, err
	}
	l := &loop{set: set, mail: mail, start: time.Now(), tcp: newTCPLoop(), done: make(chan struct{})}
	if _, err := set.Add(mail.FD(), unix.EPOLLIN|unix.EPOLLET, waker{l}); err != nil {
		mail.Close()
		set.Close()
		return nil, err
	}
	return l, nil
}

// now returns the time since the loop was made, by the monotonic clock.
func (l *loop) now() time.Duration { return time.Since(l.start) }

func (l *loop) run() {
	defer close(l.done)
	for rounds := 1; !l.stop; rounds++ {
		if rounds%yieldEvery == 0 {
			runtime.Gosched()
		}
		n := l.wait()
		l.set.Dispatch(n)
		l.proc.use(l, n)
		l.runResumed()
		l.timers.Fire(l.now())
	}
	l.end()
}

func (l *loop) end() {
	l.mail.End()
	l.tcp.pipes.close()
	l.proc.giveBack()
	l.mail.Close()
	l.set.Close()
}

// wait returns the number of events.
func (l *loop) wait() int {
	if len(l.resume) > 0 {
		return l.set.Poll()
	}
	return l.set.Wait(l.timeout())
}

// timeout returns how long to wait, in milliseconds; -1 means for ever.
func (l *loop) timeout() int {
	next, ok := l.timers.Next()
	if !ok {
		return -1
	}
	return int((max(next-l.now(), 0) + time.Millisecond - 1) / time.Millisecond)
}

// again calls the handler with no events after the other descriptors have had
// their turn. The loop does not block before that.
func (l *loop) again(t eventloop.Token) { l.resume = append(l.resume, t) }

func (l *loop) runResumed() {
	l.resume, l.spare = l.spare[:0], l.resume
	for _, t := range l.spare {
		l.set.Call(t, 0)
	}
}

// waker runs the posted functions.
type waker struct{ l *loop }

func (w waker) Ready(uint32) {
	w.l.proc.posts++
	w.l.mail.Run()
}

// after calls f on the loop after d, with a resolution of a millisecond. The
// timer may be stopped before.
func (l *loop) after(d time.Duration, f func()) *eventloop.Timer {
	t := eventloop.NewTimer(f)
	l.timers.Set(&t, l.now()+d)
	return &t
}

// stopTimer stops a timer, which may have fired, or may be nil.
func (l *loop) stopTimer(t *eventloop.Timer) {
	if t != nil {
		l.timers.Stop(t)
	}
}
