package publish

import (
	"context"
	"log/slog"
	"sync"

	"rootlesskit/internal/netns"
	"rootlesskit/internal/relay"
	"rootlesskit/internal/wire"
)

// pools have the sockets of the namespace with which ports connect: one pool
// for each type and family in use.
type pools struct {
	ctx   context.Context
	child wire.Caller
	log   *slog.Logger

	mu   sync.Mutex
	made map[poolKey]*relay.Pool
}

type poolKey struct{ sockType, family int }

// newPools returns an empty set of pools. All of them end with ctx.
func newPools(ctx context.Context, child wire.Caller, log *slog.Logger) *pools {
	return &pools{ctx: ctx, child: child, log: log, made: map[poolKey]*relay.Pool{}}
}

// get returns a pool, which starts to fill with the first call.
func (p *pools) get(sockType, family int) *relay.Pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := poolKey{sockType, family}
	pool := p.made[key]
	if pool == nil {
		pool = relay.NewPool(p.ctx, relay.PoolSize, func(ctx context.Context, n int) ([]int, error) {
			return p.fill(ctx, key, n)
		}, p.log)
		p.made[key] = pool
	}
	return pool
}

// drain closes the sockets that are ready.
func (p *pools) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pool := range p.made {
		pool.Drain()
	}
}

// wait waits until the pools have ended, after the end of their context.
func (p *pools) wait() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pool := range p.made {
		pool.Wait()
	}
}

// fill makes sockets inside the namespace. The child is root there, so they may
// have any source address (IP_TRANSPARENT). It makes n sockets, or one if
// making n fails, as when descriptors are short.
func (p *pools) fill(ctx context.Context, key poolKey, n int) ([]int, error) {
	req := netns.SocketRequest{Family: key.family, Type: key.sockType, Count: min(n, wire.MaxFDs), Transparent: true}
	fds, err := netns.Sockets(ctx, p.child, req)
	if err != nil && n > 1 && ctx.Err() == nil {
		req.Count = 1
		return netns.Sockets(ctx, p.child, req)
	}
	return fds, err
}
