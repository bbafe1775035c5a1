package relay

import (
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A loop is one goroutine around one epoll instance. The goroutine owns
// everything that is registered with the loop. Only this goroutine may call the
// loop's methods, except post and call, through which other goroutines hand work
// to it.
//
//	wait -> handlers of the events -> resumed handlers -> timers
//
// Handlers must not block and should not run for long: a handler with more work
// than its budget calls again and returns. The epoll data of a registered
// descriptor is a token of slot and generation. So an event for a descriptor
// that an earlier handler of the same batch has closed is dropped, even if the
// number or the slot is already in use again.
//
// Nonblocking calls use RawSyscall (see sys.go). Only the blocking wait informs
// Go's scheduler, so that neither GC nor other goroutines wait for an idle loop.
// The goroutine is not locked to a thread (LockOSThread): the scheduler would have
// to switch threads whenever it preempts the goroutine.
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

	// tcp and udp have what the handlers of a protocol share; the loop itself uses
	// neither.
	tcp tcpLoop
	udp udpLoop

	wakefd int
	mu     sync.Mutex
	posted []func() // functions that wait for the loop
	ended  bool     // no more posts are taken
	stop   bool     // used by the loop only
	done   chan struct{}
}

// handler handles the events of one descriptor: the EPOLL* bits, or 0 if it
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

// yieldEvery is the number of rounds after which a loop yields to Go's
// scheduler. Otherwise the scheduler would consider it a goroutine that runs for
// too long, and after 10 ms would take its processor away in every wait.
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

// now returns the time since the loop was made, by the monotonic clock.
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

// end runs the functions that were posted before the end, so that no call waits for ever.
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

// forget ends a registration whose descriptor the caller closes now: closing
// removes it from the epoll instance without another system call.
func (l *loop) forget(t token) {
	if s := &l.slots[t.slot]; s.generation == t.generation && s.handler != nil {
		s.handler = nil
		l.free = append(l.free, t.slot)
	}
}

// again calls the handler with no events after the other descriptors have had
// their turn. The loop does not block before that.
func (l *loop) again(t token) { l.resume = append(l.resume, t) }

func (l *loop) runResumed() {
	l.resume, l.spare = l.spare[:0], l.resume
	for _, t := range l.spare {
		l.dispatch(t, 0)
	}
}

// post runs f on the loop, soon. It returns false if the loop has ended and f
// will not run. Any goroutine may call it.
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

// call is like post, and waits until f has run. It must not be called on the loop.
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

// waker runs the posted functions.
type waker struct{ l *loop }

func (w waker) ready(uint32) {
	drainWake(w.l.wakefd)
	w.l.proc.posts++
	w.l.runPosted()
}

// after calls f on the loop after d, with a resolution of a millisecond. The
// timer may be stopped before.
func (l *loop) after(d time.Duration, f func()) *timer {
	t := &timer{when: l.now() + d, f: f}
	l.timers.add(t)
	return t
}

// stopTimer stops a timer, which may have fired, or may be nil.
func (l *loop) stopTimer(t *timer) {
	if t != nil {
		l.timers.remove(t)
	}
}
