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
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/driver/gvisor/translate"
)

// loop waits for the sockets of TCP. Only who has the turn may use it, but for post, call
// and stop.
type loop struct {
	file    *os.File // the epoll instance, in Go's poller
	raw     syscall.RawConn
	epfd    int
	slots   []loopSlot
	free    []uint32
	watched atomic.Int64 // registrations

	turn sync.Mutex
	// deadline is when the wait in Go's poller ends; zero: never.
	deadline time.Time

	events  [128]unix.EpollEvent
	wakefd  int
	stopped atomic.Bool

	mu     sync.Mutex
	posted []func()
	ended  bool
}

// loopSlot is a registration. Its generation tells an event for it from one for the
// descriptor that had the slot before.
type loopSlot struct {
	watcher    translate.Watcher // nil: not in use
	generation uint32
}

// loopToken names a registration.
type loopToken struct{ slot, generation uint32 }

func newLoop() (*loop, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	_ = unix.SetNonblock(epfd, true) // otherwise Go's poller does not take it
	l := &loop{file: os.NewFile(uintptr(epfd), "epoll"), epfd: epfd}
	if l.raw, err = l.file.SyscallConn(); err != nil {
		l.file.Close()
		return nil, err
	}
	if l.wakefd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		l.file.Close()
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	if _, err := l.add(l.wakefd, unix.EPOLLIN, waker{l}); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// waker runs what was posted.
type waker struct{ *loop }

// Ready implements translate.Watcher.
func (w waker) Ready(uint32) { w.runPosted() }

func (l *loop) runPosted() {
	l.mu.Lock()
	posted := l.posted
	l.posted = nil
	l.mu.Unlock()
	for _, f := range posted {
		f()
	}
}

// post has the loop run f, soon. It returns false if the loop has ended. Any goroutine
// may call it.
func (l *loop) post(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return false
	}
	l.posted = append(l.posted, f)
	if len(l.posted) == 1 {
		l.wake()
	}
	return true
}

// call is post, and waits until f has run, if the loop has not ended.
func (l *loop) call(f func()) {
	ran := make(chan struct{})
	if l.post(func() { f(); close(ran) }) {
		<-ran
	}
}

func (l *loop) wake() {
	one := uint64(1)
	unix.RawSyscall(unix.SYS_WRITE, uintptr(l.wakefd), uintptr(unsafe.Pointer(&one)), 8)
}

// end runs what was posted before, and takes nothing more.
func (l *loop) end() {
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	l.runPosted()
}

func (l *loop) close() {
	unix.Close(l.wakefd)
	l.file.Close()
}

// add calls w for the events of a descriptor until it is removed.
func (l *loop) add(fd int, events uint32, w translate.Watcher) (loopToken, error) {
	if len(l.free) == 0 {
		l.slots = append(l.slots, loopSlot{})
		l.free = append(l.free, uint32(len(l.slots)-1))
	}
	i := l.free[len(l.free)-1]
	t := loopToken{i, l.slots[i].generation + 1}
	ev := unix.EpollEvent{Events: events | unix.EPOLLET, Fd: int32(t.slot), Pad: int32(t.generation)}
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(l.epfd), unix.EPOLL_CTL_ADD, uintptr(fd), uintptr(unsafe.Pointer(&ev)), 0, 0)
	if errno != 0 {
		return loopToken{}, fmt.Errorf("epoll_ctl: %w", errno)
	}
	l.free = l.free[:len(l.free)-1]
	l.slots[i] = loopSlot{w, t.generation}
	l.watched.Add(1)
	return t, nil
}

// remove ends a registration whose descriptor the caller closes now, which takes it out
// of the epoll instance.
func (l *loop) remove(t loopToken) {
	if s := &l.slots[t.slot]; s.generation == t.generation && s.watcher != nil {
		s.watcher = nil
		l.free = append(l.free, t.slot)
		l.watched.Add(-1)
	}
}

// stop makes run return, soon. Any goroutine may call it, until run has returned.
func (l *loop) stop() {
	l.stopped.Store(true)
	l.wake()
}

// yieldEvery is after how many rounds without a pause others may run.
const yieldEvery = 8

// rounds is what is done with the turn.
type rounds interface {
	// end is called at the end of a round, and returns true if there is more to do
	// without any event.
	end() (more bool)
	// timeout is how long to wait at most; negative: for ever.
	timeout() time.Duration
	// fire does what is due.
	fire()
}

// run serves until stop is called.
func (l *loop) run(r rounds) error {
	for !l.stopped.Load() {
		err := l.raw.Read(func(uintptr) (done bool) {
			_ = l.work(r, l.dispatch) // which cannot fail
			return l.stopped.Load()
		})
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			l.expired(r)
		case err != nil:
			return err
		}
	}
	return nil
}

// work goes on with a source of events until there is nothing more to do, or the source
// fails. Others have their turn in between.
func (l *loop) work(r rounds, source func() (more bool, err error)) error {
	for n := 1; ; n++ {
		l.turn.Lock()
		more, err := source()
		more = r.end() || more
		if n%yieldEvery == 0 { // a flood from inside must not stop the rest
			r.fire()
		}
		l.limit(r)
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
func (l *loop) expired(r rounds) {
	l.turn.Lock()
	defer l.turn.Unlock()
	l.deadline = time.Time{}
	_ = l.file.SetReadDeadline(l.deadline)
	r.fire()
	l.limit(r)
}

// limit has the wait end when something is due.
func (l *loop) limit(r rounds) {
	d := r.timeout()
	if d < 0 {
		return
	}
	if at := time.Now().Add(d); l.deadline.IsZero() || at.Before(l.deadline) {
		l.deadline = at
		_ = l.file.SetReadDeadline(at)
	}
}

// dispatch is the source of the sockets' events.
func (l *loop) dispatch() (more bool, err error) {
	n := l.poll()
	for i := range n {
		ev := &l.events[i]
		if s := &l.slots[uint32(ev.Fd)]; s.watcher != nil && s.generation == uint32(ev.Pad) {
			s.watcher.Ready(ev.Events)
		}
	}
	return n == len(l.events), nil
}

// poll returns the number of events there are.
func (l *loop) poll() int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epfd), uintptr(unsafe.Pointer(&l.events[0])),
		uintptr(len(l.events)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}
