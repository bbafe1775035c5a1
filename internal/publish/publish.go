// Package publish opens ports of the host that lead into a network namespace.
//
//	client -> listening socket (hostsock) -> relay.Engine -> pooled socket -> server
//	          made in the host                               made in the namespace
//
// A socket belongs to the network namespace that it was made in, whoever uses
// it, so no connection needs who is root there: sockets are made in batches, ahead of
// time, and handed over. The engine's threads start with the first port,
// and each pool with the first port that needs it.
package publish

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"

	"rootlesskit/internal/hostsock"
	"rootlesskit/internal/relay"
	"rootlesskit/internal/sourceip"
	"rootlesskit/internal/wire"
)

// Config says how ports are published. All of it may be left out.
type Config struct {
	// Backend is what shows servers the addresses of their clients, see
	// sourceip.Config; empty: nothing does.
	Backend string
	// Own, where it is valid, has all ports lead to the namespace's own addresses,
	// one of which it is; the unspecified address says that none is known. Servers on
	// loopback alone are not reached, see sourceip.Policy.PortOfOwn.
	Own netip.Addr
	// UserlandProxies has ports lead past those of container engines, for which the
	// namespace answers the calls of userlandproxy too.
	UserlandProxies bool
	// IPv4 and IPv6 are addresses of the namespace, for the time that it cannot be
	// asked.
	IPv4, IPv6 netip.Addr
	// Inherited are sockets that ports use in place of new ones.
	Inherited *hostsock.Inherited
	// Log is where faults are told; nil drops them.
	Log *slog.Logger
}

// Ports are those that lead into one namespace.
type Ports struct {
	cfg       Config
	namespace wire.Caller
	source    *sourceip.Policy
	pools     *pools
	cancel    context.CancelFunc

	mu     sync.Mutex
	own    netip.Addr    // Config.Own, as it is now
	engine *relay.Engine // nil before the first port
	open   map[*Port]struct{}
	closed bool
}

// Open returns no ports yet, and starts nothing that costs. The handlers of netns and
// sourceip answer the caller's calls, as root of the namespace. When ctx ends, the
// ports are of no more use, and are to be closed.
func Open(ctx context.Context, namespace wire.Caller, cfg Config) *Ports {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(ctx)
	return &Ports{
		cfg:       cfg,
		namespace: namespace,
		own:       cfg.Own.Unmap(),
		cancel:    cancel,
		pools:     newPools(ctx, namespace, cfg.Log),
		open:      map[*Port]struct{}{},
		source: sourceip.New(ctx, sourceip.Config{
			Child: namespace, Backend: cfg.Backend, IPv4: cfg.IPv4, IPv6: cfg.IPv6, Log: cfg.Log,
		}),
	}
}

// Retarget has the ports of Forward lead to the namespace's own addresses as they are
// now, one of which is own. Connections and listeners stay.
func (p *Ports) Retarget(own netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.own = own.Unmap()
	for port := range p.open {
		if port.retarget != nil {
			port.retarget(p.own)
		}
	}
}

// Close closes all ports and what served them.
func (p *Ports) Close() {
	p.mu.Lock()
	p.closed = true
	var open []*Port
	for port := range p.open {
		open = append(open, port)
	}
	p.mu.Unlock()
	for _, port := range open {
		port.Close()
	}
	p.cancel()
	p.pools.wait()
	if p.engine != nil {
		p.engine.Close()
	}
}

// Backend returns what the addresses of clients rely on, see sourceip.Policy.
func (p *Ports) Backend() string { return p.source.Backend() }
