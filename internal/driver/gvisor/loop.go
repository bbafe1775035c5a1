package gvisor

// Theory of operation.
//
// TCP's connections have two sources of events: the frames of the namespace, which a
// goroutine reads (link.go), and the sockets of the host, which are in the epoll
// instance of the loop. Both goroutines wait in Go's own poller, the loop for its
// instance to have events: then no thread is kept waiting, and the goroutines of
// everything else run on the same processor (procs.Single). They take turns: who has
// got something has the turn until the end of a round.
//
//	wait -> frames, or events -> end of the round (acknowledgements) -> timers
//
// All registrations are edge-triggered: whoever gets an event uses it up, or works on.

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/driver/gvisor/translate"
	"rootlesskit/internal/eventloop"
)

// loop waits for the sockets of TCP. Only who has the turn may use it, but for the
// mailbox and stop.
type loop struct {
	translator *translate.Translator
	set        *eventloop.Set
	mail       *eventloop.Mailbox
	file       *os.File // the epoll instance, in Go's poller
	raw        syscall.RawConn
	start      time.Time
	stopped    atomic.Bool

	turn sync.Mutex
	// deadline is when the wait in Go's poller ends, since the start; 0: never.
	deadline time.Duration
}

func newLoop() (*loop, error) {
	set, err := eventloop.NewSet()
	if err != nil {
		return nil, err
	}
	_ = unix.SetNonblock(set.FD(), true) // otherwise Go's poller does not take it
	l := &loop{set: set, file: os.NewFile(uintptr(set.FD()), "epoll"), start: time.Now()}
	if l.raw, err = l.file.SyscallConn(); err != nil {
		l.file.Close()
		return nil, err
	}
	if l.mail, err = eventloop.NewMailbox(); err != nil {
		l.file.Close()
		return nil, err
	}
	if _, err := l.set.Add(l.mail.FD(), unix.EPOLLIN|unix.EPOLLET, waker{l.mail}); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// waker runs what was posted.
type waker struct{ *eventloop.Mailbox }

// Ready implements eventloop.Handler.
func (w waker) Ready(uint32) { w.Run() }

// now is the time of the loop's clock.
func (l *loop) now() time.Duration { return time.Since(l.start) }

// registered is how many descriptors there are, about one for each connection.
func (l *loop) registered() int {
	l.turn.Lock()
	defer l.turn.Unlock()
	return l.set.Len()
}

func (l *loop) close() {
	l.mail.Close()
	l.file.Close()
}

// stop makes run return, soon. Any goroutine may call it, until run has returned.
func (l *loop) stop() {
	l.stopped.Store(true)
	l.mail.Wake()
}

// yieldEvery is after how many rounds without a pause others may run.
const yieldEvery = 8

// run serves until stop is called.
func (l *loop) run() error {
	events := l.dispatch // once, not for each wait
	for !l.stopped.Load() {
		err := l.raw.Read(func(uintptr) (done bool) {
			_ = l.work(events) // which cannot fail
			return l.stopped.Load()
		})
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			l.expired()
		case err != nil:
			return err
		}
	}
	return nil
}

// work goes on with a source of events until there is nothing more to do, or the source
// fails. Others have their turn in between.
func (l *loop) work(source func() (more bool, err error)) error {
	for n := 1; ; n++ {
		l.turn.Lock()
		more, err := source()
		more = l.translator.EndRound() || more
		if n%yieldEvery == 0 { // a flood from inside must not stop the rest
			l.translator.Fire()
		}
		l.limit()
		l.turn.Unlock()
		if err != nil || !more || l.stopped.Load() {
			return err
		}
		if n%yieldEvery == 0 {
			runtime.Gosched()
		}
	}
}

// expired does what is due when the wait is over.
func (l *loop) expired() {
	l.turn.Lock()
	defer l.turn.Unlock()
	l.deadline = 0
	_ = l.file.SetReadDeadline(time.Time{})
	l.translator.Fire()
	l.limit()
}

// limit has the wait end when something is due.
func (l *loop) limit() {
	if due, ok := l.translator.Due(); ok && (l.deadline == 0 || due < l.deadline) {
		l.deadline = due
		_ = l.file.SetReadDeadline(l.start.Add(due))
	}
}

// dispatch is the source of the sockets' events.
func (l *loop) dispatch() (more bool, err error) {
	n := l.set.Poll()
	l.set.Dispatch(n)
	return n == l.set.Full(), nil
}
