package relay

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/eventloop"
)

func startLoop(t testing.TB) *loop {
	t.Helper()
	e, err := New(Options{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e.pick()
}

// do runs f on the loop and waits for it.
func do(t testing.TB, l *loop, f func()) {
	t.Helper()
	if !l.mail.Call(f) {
		t.Fatal("the loop has ended")
	}
}

type handlerFunc func(events uint32)

func (f handlerFunc) Ready(events uint32) { f(events) }

func pipeFDs(t testing.TB) (r, w int) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p[0]); unix.Close(p[1]) })
	return p[0], p[1]
}

func TestLoopTellsEventsAndResumes(t *testing.T) {
	l := startLoop(t)
	r, w := pipeFDs(t)
	var tok eventloop.Token
	got := make(chan uint32, 2)
	do(t, l, func() {
		tok, _ = l.set.Add(r, unix.EPOLLIN|unix.EPOLLET, handlerFunc(func(events uint32) {
			if events != 0 {
				l.again(tok)
			}
			got <- events
		}))
	})
	if _, err := unix.Write(w, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if ev := <-got; ev != unix.EPOLLIN {
		t.Fatalf("events %#x, want EPOLLIN", ev)
	}
	if ev := <-got; ev != 0 {
		t.Fatalf("resumed with events %#x, want 0", ev)
	}
	do(t, l, func() { l.set.Remove(r, tok) })
}

// A handler closes the other descriptor of the same batch and reuses its slot:
// the event that is left over must reach neither.
func TestLoopDropsStaleEvents(t *testing.T) {
	l := startLoop(t)
	var r, w [2]int
	for i := range r {
		r[i], w[i] = pipeFDs(t)
	}
	spare, _ := pipeFDs(t)
	var toks [2]eventloop.Token
	calls := make(chan int, 4)
	do(t, l, func() {
		for i := range r {
			toks[i], _ = l.set.Add(r[i], unix.EPOLLIN|unix.EPOLLET, handlerFunc(func(uint32) {
				l.set.Remove(r[1-i], toks[1-i])
				if _, err := l.set.Add(spare, unix.EPOLLIN|unix.EPOLLET, handlerFunc(func(uint32) { calls <- -1 })); err != nil {
					t.Error(err)
				}
				calls <- i
			}))
			if _, err := unix.Write(w[i], []byte("x")); err != nil {
				t.Error(err)
			}
		}
	})
	<-calls
	do(t, l, func() {}) // the batch is over
	if len(calls) != 0 {
		t.Fatalf("a closed registration was called: %d", <-calls)
	}
}

func TestLoopTimers(t *testing.T) {
	l := startLoop(t)
	fired := make(chan int, 3)
	do(t, l, func() {
		l.after(2*time.Hour, func() { fired <- 2 })
		stopped := l.after(time.Hour, func() { fired <- 1 })
		l.after(5*time.Millisecond, func() { fired <- 0 })
		l.stopTimer(stopped)
		l.stopTimer(nil)
	})
	if n := <-fired; n != 0 {
		t.Fatalf("fired %d first, want 0", n)
	}
	do(t, l, func() { l.start = l.start.Add(-2 * time.Hour) })
	if n := <-fired; n != 2 {
		t.Fatalf("fired %d then, want 2", n)
	}
}

func TestLoopTakesNoPostsAfterItsEnd(t *testing.T) {
	e, err := New(Options{Loops: 2})
	if err != nil {
		t.Fatal(err)
	}
	l := e.pick()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if l.mail.Post(func() {}) || l.mail.Call(func() {}) {
		t.Fatal("a loop that has ended took a post")
	}
}

func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

func TestIdleLoopUsesNoCPU(t *testing.T) {
	e, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for range 100 { // make them hot first
		for _, l := range e.loops {
			do(t, l, func() {})
		}
	}
	expectIdle(t, "loops")
}

// expectIdle looks at the process's CPU time for a while, in which something else of it
// may run for once, such as the garbage collector: it is idle if it is at one of ten tries.
func expectIdle(t *testing.T, what string) {
	t.Helper()
	const window = 200 * time.Millisecond
	used := window
	for range 10 {
		before := cpuTime(t)
		time.Sleep(window)
		if used = min(used, cpuTime(t)-before); used <= window/20 {
			return
		}
	}
	t.Errorf("idle %s use %v of CPU in %v, at best", what, used, window)
}

// TestLoopsProcessor: a loop has a processor of its own while there is traffic, and
// none for what is posted.
func TestLoopsProcessor(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	l := startLoop(t)
	r, w := pipeFDs(t)
	processors := make(chan int, 1)
	do(t, l, func() {
		var tok eventloop.Token
		tok, _ = l.set.Add(r, unix.EPOLLIN|unix.EPOLLET, handlerFunc(func(events uint32) {
			if events != 0 {
				l.again(tok) // in the same round, before a timer may give the processor back
				return
			}
			processors <- runtime.GOMAXPROCS(0)
		}))
	})
	do(t, l, func() {})
	if n := runtime.GOMAXPROCS(0); n != before {
		t.Errorf("an idle loop makes it %d processors, want %d", n, before)
	}
	if _, err := unix.Write(w, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if n := <-processors; n != before+1 {
		t.Errorf("a loop with traffic makes it %d processors, want %d", n, before+1)
	}
	do(t, l, func() {
		l.proc.seen = l.proc.uses // as after a second without traffic
		l.proc.look(l)
	})
	if n := runtime.GOMAXPROCS(0); n != before {
		t.Errorf("after the traffic there are %d processors, want %d", n, before)
	}
	if _, err := unix.Write(w, []byte("x")); err != nil {
		t.Fatal(err)
	}
	<-processors
}

// TestEngineGivesProcessorsBack runs after loops that were busy to their end.
func TestEngineGivesProcessorsBack(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	e, err := New(Options{Loops: 2})
	if err != nil {
		t.Fatal(err)
	}
	first, second := e.loops[0], e.loops[1]
	do(t, first, func() { // both are inside a handler, so no timer gives a processor back
		first.proc.use(first, 2) // beside what was posted
		second.mail.Call(func() {
			second.proc.use(second, 2)
			if n := runtime.GOMAXPROCS(0); n != before+2 {
				t.Errorf("two busy loops make it %d processors, want %d", n, before+2)
			}
		})
	})
	_ = e.Close()
	if n := runtime.GOMAXPROCS(0); n != before {
		t.Errorf("after Close there are %d processors, want %d", n, before)
	}
}
