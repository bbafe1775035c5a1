package relay

import (
	"context"
	"testing"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/netns"
	"rootlesskit/internal/nstest"
	"rootlesskit/internal/sockio"
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
			sockio.CloseAll(fds)
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

// scarcePools has sockets of the test's own namespace once it is filled.
type scarcePools struct {
	pool func(int) *Pool
	fill chan struct{} // to be closed
}

func newScarcePools(t testing.TB) *scarcePools {
	t.Helper()
	s := &scarcePools{fill: make(chan struct{})}
	s.pool = testPools(t, func(ctx context.Context, family, n int) ([]int, error) {
		select {
		case <-s.fill:
			return localSockets(ctx, family, n)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	return s
}
