package relay

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Pool keeps sockets of the child's network namespace ready. A goroutine of its
// own fills it in batches; the loops take from it and never wait.
type Pool struct {
	ready chan int      // its capacity is the pool's size
	low   chan struct{} // tells the filler that half of it is gone
	fill  FillFunc
	log   *slog.Logger
	done  chan struct{}

	mu      sync.Mutex
	waiting []waiter
}

// FillFunc makes up to n unconnected, nonblocking sockets of the pool's family
// and type. The Pool owns them.
type FillFunc func(ctx context.Context, n int) ([]int, error)

// waiter is a function to run on a loop once the pool has sockets again.
type waiter struct {
	loop *loop
	f    func()
}

const (
	// PoolSize suits one family of TCP or UDP: at 10,000 connections a second
	// half of it lasts for longer than a busy machine takes to refill it.
	PoolSize = 256
	// fillBatch is the most that one fill is asked for: what fits in one
	// SCM_RIGHTS message (SCM_MAX_FD is 253).
	fillBatch = 128
	// poolShare bounds a pool to this part of the descriptors that the process
	// may have.
	poolShare = 16

	minRefillDelay = 10 * time.Millisecond // after a failure; doubles
	maxRefillDelay = time.Second
)

// NewPool starts to fill a pool. It ends with ctx; Wait waits for that. A size
// of 0 is PoolSize; it is bounded by a sixteenth of RLIMIT_NOFILE. log tells
// when the pool cannot be filled; nil drops it.
func NewPool(ctx context.Context, size int, fill FillFunc, log *slog.Logger) *Pool {
	if size <= 0 {
		size = PoolSize
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	p := &Pool{
		ready: make(chan int, max(min(size, descriptorLimit()/poolShare), 1)),
		low:   make(chan struct{}, 1),
		fill:  fill,
		log:   log,
		done:  make(chan struct{}),
	}
	go p.run(ctx)
	return p
}

// descriptorLimit is RLIMIT_NOFILE.
func descriptorLimit() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 1024 // the usual one
	}
	return int(min(limit.Cur, 1<<30))
}

// Wait returns once the pool has closed its sockets, after its context's end.
func (p *Pool) Wait() { <-p.done }

// get takes a socket, which is then the caller's. It reports false when there
// is none.
func (p *Pool) get() (int, bool) {
	select {
	case fd := <-p.ready:
		if len(p.ready) == cap(p.ready)/2 {
			p.refill()
		}
		return fd, true
	default:
		p.refill()
		return -1, false
	}
}

// put gives a socket back that was not used.
func (p *Pool) put(fd int) {
	select {
	case p.ready <- fd:
	default:
		unix.Close(fd)
	}
}

func (p *Pool) refill() {
	select {
	case p.low <- struct{}{}:
	default:
	}
}

// notify runs f on the loop, once, when the pool has been filled again.
func (p *Pool) notify(l *loop, f func()) {
	p.mu.Lock()
	p.waiting = append(p.waiting, waiter{l, f})
	p.mu.Unlock()
	p.refill()
}

func (p *Pool) run(ctx context.Context) {
	defer close(p.done)
	defer p.drain()
	delay := time.Duration(0)
	for {
		err := p.top(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			delay = 0
		case delay == 0:
			p.log.Warn("no sockets of the namespace can be made; new connections wait", "error", err)
		}
		if err != nil {
			delay = min(max(2*delay, minRefillDelay), maxRefillDelay)
			if !sleep(ctx, delay) {
				return
			}
			continue
		}
		select {
		case <-p.low:
		case <-ctx.Done():
			return
		}
	}
}

// top fills the pool up.
func (p *Pool) top(ctx context.Context) error {
	for {
		missing := cap(p.ready) - len(p.ready)
		if missing == 0 {
			return nil
		}
		fds, err := p.fill(ctx, min(missing, fillBatch))
		if err != nil {
			return fmt.Errorf("filling the pool: %w", err)
		}
		for _, fd := range fds {
			prepare(fd)
			p.put(fd)
		}
		p.wakeWaiting()
	}
}

// prepare sets what every connection wants, away from the loops. Each is a
// refinement only, and UDP sockets have not got the first.
func prepare(fd int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	// A source without a port gets one at connect, which can share it between
	// destinations, and not at bind (Linux 4.2).
	_ = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
}

func (p *Pool) wakeWaiting() {
	p.mu.Lock()
	waiting := p.waiting
	p.waiting = nil
	p.mu.Unlock()
	for _, w := range waiting {
		w.loop.post(w.f)
	}
}

func (p *Pool) drain() {
	for {
		select {
		case fd := <-p.ready:
			unix.Close(fd)
		default:
			return
		}
	}
}

// sleep reports false when the context has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
