package relay

import (
	"context"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/netns"
	"rootlesskit/internal/nstest"
)

// testPools has a pool for each family until the test ends.
func testPools(t testing.TB, fill func(ctx context.Context, family, n int) ([]int, error)) func(int) *Pool {
	t.Helper()
	pools, end := endingPools(fill)
	t.Cleanup(end)
	return pools
}

// endingPools has a pool for each family until end is called.
func endingPools(fill func(ctx context.Context, family, n int) ([]int, error)) (pool func(int) *Pool, end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	pools := map[int]*Pool{}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		pools[family] = NewPool(ctx, 8, func(ctx context.Context, n int) ([]int, error) {
			return fill(ctx, family, n)
		}, nil)
	}
	return func(family int) *Pool { return pools[family] }, func() {
		cancel()
		for _, p := range pools {
			p.Wait()
		}
	}
}

// localPools has sockets of the test's own namespace.
func localPools(t testing.TB) func(int) *Pool { return testPools(t, localSockets) }

func localSockets(_ context.Context, family, n int) ([]int, error) {
	var fds []int
	for range n {
		fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			closeAll(fds)
			return nil, err
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

// childPools has sockets of a child's namespace.
func childPools(t testing.TB, c *nstest.Child) func(int) *Pool {
	return testPools(t, func(ctx context.Context, family, n int) ([]int, error) {
		return netns.Sockets(ctx, c, netns.SocketRequest{Family: family, Type: unix.SOCK_DGRAM, Count: n})
	})
}

// scarcePools is empty until filled is set.
type scarcePools struct {
	all    func(int) *Pool
	none   *Pool
	filled atomic.Bool
}

func newScarcePools(t testing.TB) *scarcePools {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	none := NewPool(ctx, 1, func(ctx context.Context, _ int) ([]int, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}, nil)
	t.Cleanup(func() { cancel(); none.Wait() })
	return &scarcePools{all: localPools(t), none: none}
}

func (s *scarcePools) pool(family int) *Pool {
	if s.filled.Load() {
		return s.all(family)
	}
	return s.none
}
