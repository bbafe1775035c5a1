// Package publish opens ports of the host that lead into a network namespace.
//
//	client -> listening socket (hostsock) -> relay.Engine -> pooled socket -> server
//	          made in the host                               made in the namespace
//
// A socket belongs to the network namespace in which it was made, whoever uses it. So
// the namespace's root makes sockets in batches, ahead of time, and hands them over;
// no connection has to wait for it. The engine starts with the first port, and each
// pool with the first port that needs it.
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

// Config says how ports are published. All fields are optional.
type Config struct {
	// Backend is the backend that shows servers the addresses of their clients,
	// see sourceip.Config; empty: none.
	Backend string
	// Own, if valid, is one of the namespace's own addresses, to which all ports then
	// lead; the unspecified address says that none is known. Servers that only listen
	// on loopback are not reached, see sourceip.Own.
	Own netip.Addr
	// UserlandProxies makes ports bypass the userland proxies of container engines.
	// The namespace must answer the calls of package userlandproxy too.
	UserlandProxies bool
	// IPv4 and IPv6 are addresses of the namespace, for use while it cannot be
	// asked.
	IPv4, IPv6 netip.Addr
	// Inherited has sockets that ports use instead of new ones.
	Inherited *hostsock.Inherited
	// Log receives faults; nil drops them.
	Log *slog.Logger
}

// Ports are the ports that lead into one namespace.
type Ports struct {
	cfg       Config
	namespace wire.Caller
	source    *sourceip.Policy
	pools     *pools
	cancel    context.CancelFunc

	mu       sync.Mutex
	own      netip.Addr    // Config.Own, as it is now
	engine   *relay.Engine // nil before the first port
	open     map[*Port]struct{}
	closed   bool
	starting sync.WaitGroup // calls of start that opened a port, or will
}

// Open returns an empty set of ports, and starts nothing that takes resources.
// namespace must answer the calls of packages netns and sourceip, as root of the
// namespace. When ctx ends, the ports no longer work, and must be closed.
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

// Retarget makes the ports of Forward lead to the namespace's current addresses, one
// of which is own. Connections and listeners stay.
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

// Close closes all ports, the engine and the pools.
func (p *Ports) Close() {
	p.mu.Lock()
	p.closed = true
	var open []*Port
	for port := range p.open {
		open = append(open, port)
	}
	p.mu.Unlock()
	p.starting.Wait()
	for _, port := range open {
		port.Close()
	}
	p.cancel()
	p.pools.wait()
	if p.engine != nil {
		p.engine.Close()
	}
}

// Backend returns the backend in use, see sourceip.Policy.
func (p *Ports) Backend() string { return p.source.Backend() }
