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

// Pool keeps unconnected sockets of the child's network namespace ready, so
// that a connection need not wait for one. They are made in batches.
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

// PoolSize suits one family of TCP or UDP: at 10,000 connections a second, half
// of it lasts longer than a refill takes.
const PoolSize = 128

// A pool begins with poolStart sockets, since most ports are never busy. It doubles
// when half of it is used within growTime, and does not shrink.
const (
	poolStart = 8
	growTime  = time.Second
)

// waiter is a connection that waits for a socket on its loop.
type waiter struct {
	loop *loop
	got  func(fd int) // called on the loop; -1: there will be none
}

// A failed fill is repeated after retryMin, then after twice as long, up to
// retryMax.
const (
	retryMin = 5 * time.Millisecond
	retryMax = 200 * time.Millisecond
)

// poolShare bounds a pool to this fraction of the process's limit of
// descriptors: sockets in reserve must not starve connections.
const poolShare = 16

// NewPool starts to keep sockets ready: a few at first, and up to size (0 means
// PoolSize) if many are used, but no more than a sixteenth of RLIMIT_NOFILE. One
// goroutine calls fill. It ends with ctx, and then closes the remaining sockets.
// Shortages are logged to log, unless it is nil.
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

// affordable returns a pool's size, bounded by the limit of descriptors.
func affordable(size int) int { return max(min(size, fdlimit.Get()/poolShare), 1) }

// shed closes the sockets for which a lowered limit of descriptors leaves no room.
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

// Drain closes the sockets that are ready, because their descriptors are needed
// for something else. The pool makes new ones when it is asked for a socket.
func (p *Pool) Drain() {
	p.mu.Lock()
	ready := p.ready
	p.ready, p.size, p.filled = nil, min(poolStart, p.most), time.Time{}
	p.mu.Unlock()
	sockio.CloseAll(ready)
}

// Wait waits until the pool has closed its sockets, after the end of its context.
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
		w.loop.mail.Post(func() { w.got(-1) })
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
				return // fill failed because of the end
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

// grow enlarges the pool if it is used up fast.
func (p *Pool) grow(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.ready) <= p.size/2 && now.Sub(p.filled) < growTime {
		p.size = min(2*p.size, p.most)
	}
}

// refill makes the missing sockets. Beyond the ceiling of descriptors, it makes
// one at a time for waiting connections, and none to keep ready.
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
			sockio.PrepareTCP(fd) // UDP sockets do not have these options
			_ = unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, localCongestion)
		}
		p.add(fds)
	}
}

// add first serves waiting connections, and closes sockets for which the pool
// has no room.
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
		if !w.loop.mail.Post(func() { w.got(fd) }) {
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
		w.loop.mail.Post(func() { w.got(-1) })
	}
}
