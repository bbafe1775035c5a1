package relay

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/fdlimit"
	"rootlesskit/internal/sockio"
)

// Pool keeps unconnected sockets of the child's network namespace at hand, so
// that a connection need not wait for one to be made. They come in batches.
type Pool struct {
	fill  FillFunc
	log   *slog.Logger
	told  seldom
	short chan struct{} // a hint to the filler: there is room
	done  chan struct{}

	mu      sync.Mutex
	size    int       // how many to keep ready now
	most    int       // what size may grow to
	filled  time.Time // when the pool was last filled; zero: not yet
	ready   []int
	waiting []*waiter
	closed  bool
}

// FillFunc makes n unconnected sockets, nonblocking and close-on-exec. The pool
// owns them.
type FillFunc func(ctx context.Context, n int) ([]int, error)

// PoolSize suits one family of TCP or UDP: half of it lasts for longer than a
// refill takes at 10,000 connections a second.
const PoolSize = 128

// A pool begins with poolStart sockets, as most ports are never busy. It doubles where
// half of it is used up within growTime, and stays so.
const (
	poolStart = 8
	growTime  = time.Second
)

// waiter is a connection that waits for a socket on its loop.
type waiter struct {
	loop *loop
	got  func(fd int) // on the loop; -1: there will be none
}

// A failed fill is tried again after retryMin, then after twice as long, up to
// retryMax.
const (
	retryMin = 5 * time.Millisecond
	retryMax = 200 * time.Millisecond
)

// poolShare bounds a pool to this part of the descriptors that the process may
// have: those that wait must not starve those that work.
const poolShare = 16

// NewPool starts to keep sockets ready: a few, and up to size (0: PoolSize) where
// many are used, or fewer where descriptors are few: a sixteenth of RLIMIT_NOFILE.
// fill is called by one goroutine, which ends with ctx, as do the sockets that are
// left. log is told of a shortage; nil drops it.
func NewPool(ctx context.Context, size int, fill FillFunc, log *slog.Logger) *Pool {
	if size <= 0 {
		size = PoolSize
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	most := affordable(size)
	p := &Pool{
		fill: fill, log: log, size: min(poolStart, most), most: most,
		short: make(chan struct{}, 1), done: make(chan struct{}),
	}
	p.hint()
	go p.run(ctx)
	return p
}

// affordable bounds a pool's size by the limit of descriptors.
func affordable(size int) int { return max(min(size, fdlimit.Get()/poolShare), 1) }

// shed closes what the limit of descriptors, lowered since, leaves no room for.
func (p *Pool) shed() {
	p.mu.Lock()
	p.most = affordable(p.most)
	p.size = min(p.size, p.most)
	var excess []int
	if n := len(p.ready); n > p.size {
		excess = p.ready[p.size:n:n]
		p.ready = p.ready[:p.size:p.size]
	}
	p.mu.Unlock()
	sockio.CloseAll(excess)
}

// Drain closes the sockets that are ready, where descriptors are needed for
// something else. The pool makes others when it is asked for one.
func (p *Pool) Drain() {
	p.mu.Lock()
	ready := p.ready
	p.ready, p.size, p.filled = nil, min(poolStart, p.most), time.Time{}
	p.mu.Unlock()
	sockio.CloseAll(ready)
}

// Wait returns when the pool has closed its sockets, after its context ended.
func (p *Pool) Wait() { <-p.done }

// get returns a socket, if one is ready.
func (p *Pool) get() (int, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.ready)
	if n <= p.size/2 {
		p.hint()
	}
	if n == 0 {
		return -1, false
	}
	fd := p.ready[n-1]
	p.ready = p.ready[:n-1]
	return fd, true
}

// putBack returns a socket that was not used.
func (p *Pool) putBack(fd int) { p.add([]int{fd}) }

// wait arranges for w.got to be called on the loop once there is a socket.
func (p *Pool) wait(w *waiter) {
	p.mu.Lock()
	closed := p.closed
	if !closed {
		p.waiting = append(p.waiting, w)
	}
	p.mu.Unlock()
	p.hint()
	if closed {
		w.loop.post(func() { w.got(-1) })
	}
}

func (p *Pool) hint() {
	select {
	case p.short <- struct{}{}:
	default:
	}
}

func (p *Pool) run(ctx context.Context) {
	defer close(p.done)
	defer p.close()
	retry := retryMin
	for {
		select {
		case <-p.short:
		case <-ctx.Done():
			return
		}
		if err := p.refill(ctx); err != nil {
			select {
			case <-time.After(retry):
			case <-ctx.Done():
				return // the failure was that of the end
			}
			if p.told.due() {
				p.log.Warn("no sockets of the namespace for new connections, trying again", "error", err)
			}
			retry = min(2*retry, retryMax)
			p.hint()
			continue
		}
		retry = retryMin
	}
}

// grow makes the pool larger where it is used up fast.
func (p *Pool) grow(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.ready) <= p.size/2 && now.Sub(p.filled) < growTime {
		p.size = min(2*p.size, p.most)
	}
}

// refill makes what is missing. Beyond the ceiling of descriptors it makes one for
// who waits, and none to be kept ready.
func (p *Pool) refill(ctx context.Context) error {
	p.grow(time.Now())
	for {
		p.mu.Lock()
		size, waiting := p.size, len(p.waiting)
		missing := size + waiting - len(p.ready)
		p.mu.Unlock()
		if missing <= 0 {
			return nil
		}
		room := fdlimit.Room()
		if room == 0 {
			if waiting == 0 {
				return nil
			}
			room = 1
		}
		fds, err := p.fill(ctx, min(missing, size, room))
		if err != nil {
			return err
		}
		if len(fds) == 0 {
			return fmt.Errorf("got none of %d sockets", missing)
		}
		for _, fd := range fds {
			sockio.PrepareTCP(fd) // UDP sockets have none of it
			_ = unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, localCongestion)
		}
		p.add(fds)
	}
}

// add serves those who wait first, and closes what the pool has no room for.
func (p *Pool) add(fds []int) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		sockio.CloseAll(fds)
		return
	}
	n := min(len(fds), len(p.waiting))
	served, rest := p.waiting[:n], fds[n:]
	p.waiting = append([]*waiter(nil), p.waiting[n:]...)
	room := max(min(p.size-len(p.ready), len(rest)), 0)
	p.ready = append(p.ready, rest[:room]...)
	if len(p.ready) >= p.size {
		p.filled = time.Now()
	}
	p.mu.Unlock()
	sockio.CloseAll(rest[room:])
	for i, w := range served {
		fd := fds[i]
		if !w.loop.post(func() { w.got(fd) }) {
			unix.Close(fd)
		}
	}
}

func (p *Pool) close() {
	p.mu.Lock()
	ready, waiting := p.ready, p.waiting
	p.ready, p.waiting, p.closed = nil, nil, true
	p.mu.Unlock()
	sockio.CloseAll(ready)
	for _, w := range waiting {
		w.loop.post(func() { w.got(-1) })
	}
}
