package relay

import (
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A loop is one goroutine around one epoll instance. Everything that is
// registered with it is owned by that goroutine: its methods may be called there
// only, except post and call, which are how every other goroutine gets in.
//
//	wait -> handlers of the events -> resumed handlers -> timers
//
// Handlers must not block and should not run for long: one that has more to do
// after its budget calls resume and returns. Descriptors that are waited for
// carry a token of slot and generation in the epoll data, so that an event of a
// descriptor which an earlier handler of the same batch has closed is dropped,
// although its number or its slot may be in use again.
//
// Nonblocking calls go by RawSyscall (see sys.go). Only the wait that blocks
// tells Go's scheduler, so that neither GC nor other goroutines wait for an idle
// loop. The goroutine has no thread of its own (LockOSThread): the scheduler would
// have to switch threads each time that it preempts it.
type loop struct {
	epfd   int
	start  time.Time
	slots  []slot
	free   []uint32 // slots not in use
	resume []token  // handlers to call again in this round
	spare  []token  // the other half of the double buffer of resume
	timers timerHeap
	proc   processor
	events [128]unix.EpollEvent

	// tcp and udp are what the handlers of a protocol share; the loop itself knows
	// neither.
	tcp tcpLoop
	udp udpLoop

	wakefd int
	mu     sync.Mutex
	posted []func() // nil after run: waiting for the loop
	ended  bool     // no more posts are taken
	stop   bool     // the loop only
	done   chan struct{}
}

// handler is told of the events of one descriptor: the EPOLL* bits, or 0 when it
// asked to be resumed.
type handler interface {
	ready(events uint32)
}

// token names one registration. The zero token names none.
type token struct {
	slot, generation uint32
}

type slot struct {
	handler    handler // nil: not in use
	generation uint32
}

// yieldEvery is the number of rounds after which a loop goes through Go's
// scheduler, which without that takes it for a goroutine that runs for too long:
// after 10 ms it would take the processor away in every single wait.
const yieldEvery = 128

func newLoop() (*loop, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	wakefd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epfd)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	l := &loop{
		epfd:   epfd,
		start:  time.Now(),
		tcp:    newTCPLoop(),
		wakefd: wakefd,
		done:   make(chan struct{}),
	}
	if _, err := l.register(wakefd, unix.EPOLLIN|unix.EPOLLET, waker{l}); err != nil {
		unix.Close(wakefd)
		unix.Close(epfd)
		return nil, err
	}
	return l, nil
}

// now is the time since the loop was made, by the monotonic clock.
func (l *loop) now() time.Duration { return time.Since(l.start) }

func (l *loop) run() {
	defer close(l.done)
	for rounds := 1; !l.stop; rounds++ {
		if rounds%yieldEvery == 0 {
			runtime.Gosched()
		}
		n := l.wait()
		for i := range n {
			ev := &l.events[i]
			l.dispatch(token{uint32(ev.Fd), uint32(ev.Pad)}, ev.Events)
		}
		l.proc.use(l, n)
		l.runResumed()
		l.timers.fire(l.now())
	}
	l.end()
}

// end runs what was posted before the end, so that no call waits for ever.
func (l *loop) end() {
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	l.runPosted()
	l.tcp.pipes.close()
	l.proc.giveBack()
	unix.Close(l.wakefd)
	unix.Close(l.epfd)
}

func (l *loop) dispatch(t token, events uint32) {
	if s := &l.slots[t.slot]; s.generation == t.generation && s.handler != nil {
		s.handler.ready(events)
	}
}

// wait returns the number of events in l.events.
func (l *loop) wait() int {
	if len(l.resume) > 0 {
		return epollPoll(l.epfd, l.events[:])
	}
	return epollWait(l.epfd, l.events[:], l.timers.timeout(l.now()))
}

// register calls h whenever one of the events happens on fd, until unregister
// or forget. EPOLLERR and EPOLLHUP are always among them.
func (l *loop) register(fd int, events uint32, h handler) (token, error) {
	if len(l.free) == 0 {
		l.slots = append(l.slots, slot{})
		l.free = append(l.free, uint32(len(l.slots)-1))
	}
	i := l.free[len(l.free)-1]
	s := &l.slots[i]
	t := token{i, s.generation + 1}
	if err := epollCtl(l.epfd, unix.EPOLL_CTL_ADD, fd, events, t); err != nil {
		return token{}, fmt.Errorf("epoll_ctl: adding descriptor %d: %w", fd, err)
	}
	l.free = l.free[:len(l.free)-1]
	s.generation++
	s.handler = h
	return t, nil
}

// unregister ends the registration of a descriptor that stays open.
func (l *loop) unregister(fd int, t token) {
	_ = epollCtl(l.epfd, unix.EPOLL_CTL_DEL, fd, 0, t)
	l.forget(t)
}

// forget ends a registration whose descriptor the caller closes now: the close
// takes it out of the epoll, without a system call of its own.
func (l *loop) forget(t token) {
	if s := &l.slots[t.slot]; s.generation == t.generation && s.handler != nil {
		s.handler = nil
		l.free = append(l.free, t.slot)
	}
}

// again calls the handler with no events after the other descriptors had their
// turn. The loop does not block before it did.
func (l *loop) again(t token) { l.resume = append(l.resume, t) }

func (l *loop) runResumed() {
	l.resume, l.spare = l.spare[:0], l.resume
	for _, t := range l.spare {
		l.dispatch(t, 0)
	}
}

// post runs f on the loop, soon. It reports false when the loop has
// ended and f will not run. It may be called from everywhere.
func (l *loop) post(f func()) bool {
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		return false
	}
	l.posted = append(l.posted, f)
	first := len(l.posted) == 1
	if first {
		// Under the lock, so that wakefd cannot be closed in between.
		wake(l.wakefd)
	}
	l.mu.Unlock()
	return true
}

// call is post, and waits for f to have run. It must not be called on the loop.
func (l *loop) call(f func()) bool {
	ran := make(chan struct{})
	if !l.post(func() { f(); close(ran) }) {
		return false
	}
	<-ran
	return true
}

func (l *loop) runPosted() {
	l.mu.Lock()
	posted := l.posted
	l.posted = nil
	l.mu.Unlock()
	for _, f := range posted {
		f()
	}
}

// waker runs what was posted.
type waker struct{ l *loop }

func (w waker) ready(uint32) {
	drainWake(w.l.wakefd)
	w.l.proc.posts++
	w.l.runPosted()
}

// after calls f on the loop once d has passed; the resolution is a
// millisecond. The timer may be stopped before.
func (l *loop) after(d time.Duration, f func()) *timer {
	t := &timer{when: l.now() + d, f: f}
	l.timers.add(t)
	return t
}

// stopTimer ends a timer that may have fired; nil is one that has.
func (l *loop) stopTimer(t *timer) {
	if t != nil {
		l.timers.remove(t)
	}
}
