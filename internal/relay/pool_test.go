package relay

import (
	"context"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPoolGrows: a pool begins small, and grows where it is used up fast.
func TestPoolGrows(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var made atomic.Int64
	p := NewPool(ctx, 0, func(_ context.Context, n int) ([]int, error) {
		made.Add(int64(n))
		return localSockets(ctx, unix.AF_INET, n)
	}, nil)
	defer func() { cancel(); p.Wait() }()
	ready := func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.ready)
	}
	until(t, "the first sockets", func() bool { return ready() == poolStart })
	if n := made.Load(); n != poolStart {
		t.Errorf("%d sockets were made", n)
	}
	until(t, "a full pool", func() bool {
		if ready() == p.most {
			return true
		}
		for fd, ok := p.get(); ok; fd, ok = p.get() {
			unix.Close(fd)
		}
		return false
	})
}
