package sourceip

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"rootlesskit/internal/wire"
)

// Config is what the parent's side works with.
type Config struct {
	Child wire.Caller
	// Backend is "auto", "nft" or "iptables" (--source-ip-transparent-backend),
	// or empty, so that no client's own address is shown
	// (--source-ip-transparent=false).
	Backend string
	// IPv4 and IPv6 are addresses of the child, invalid where it has none, for
	// the time that it cannot be asked.
	IPv4, IPv6 netip.Addr
	Log        *slog.Logger
}

// Policy decides with which source address clients reach the servers in the
// namespace. It has no goroutines.
type Policy struct {
	cfg     Config
	backend atomic.Pointer[string]
	said    sync.Map // problems that were logged
}

// New asks the child which backend is usable. Nothing is changed in the
// namespace before a client comes that is not on this host's loopback.
func New(ctx context.Context, cfg Config) *Policy {
	p := &Policy{cfg: cfg}
	none := "none"
	p.backend.Store(&none)
	if cfg.Backend == "" {
		return p
	}
	var reply probed
	if _, err := cfg.Child.Call(ctx, probeMethod, request{Backend: cfg.Backend}, &reply); err != nil {
		p.say(err.Error())
		return p
	}
	p.backend.Store(&reply.Backend)
	if reply.Problem != "" {
		p.say(reply.Problem)
	}
	return p
}

// Backend returns what the real addresses rely on: "nft", "iptables", or
// "none", with which TCP to servers without NAT still shows them. It may change
// when the first client comes.
func (p *Policy) Backend() string { return *p.backend.Load() }

// say logs a problem once.
func (p *Policy) say(problem string) {
	if _, said := p.said.LoadOrStore(problem, true); !said {
		p.cfg.Log.Warn("some clients' addresses cannot be shown to servers in the namespace, the namespace's own address is used instead", "problem", problem)
	}
}

// Route is the way of one client into the namespace.
type Route struct {
	// Source is what to bind the socket to; invalid: do not bind.
	//
	// With a port, it is the client's address, which needs IP_TRANSPARENT, and
	// SO_REUSEADDR for a client that uses one port towards several published
	// ones. Where the port is taken all the same (EADDRINUSE of bind by a server
	// at that port of the namespace; EADDRNOTAVAIL of connect, where the client
	// has such a connection to this server already), port 0 keeps the address at
	// least.
	//
	// With port 0, SO_REUSEADDR must not be set for UDP, or two sockets may get
	// the same port, and IP_BIND_ADDRESS_NO_PORT (Linux 4.2) should be set for
	// TCP, so that connections to different targets share ports.
	Source netip.AddrPort
	// Target is what to connect to, maybe of another address family than the
	// client's. Invalid: there is no way, the client has to be refused.
	Target netip.AddrPort
}

// Port decides for the clients of one published port.
type Port struct {
	policy *Policy
	proto  int
	target netip.AddrPort
	known  atomic.Pointer[plan] // nil where the child has to be asked
	asking chan struct{}        // a semaphore: one question at a time
}

// planTTL bounds how long a server may be missed that has moved to another
// address, silentTTL one that has started.
const (
	planTTL   = time.Second
	silentTTL = 10 * time.Millisecond
)

// askTimeout bounds the wait for a child that does not answer.
const askTimeout = 3 * time.Second

// Port returns the decisions for a port that leads to target. proto is
// unix.IPPROTO_TCP or unix.IPPROTO_UDP. There is nothing to close.
func (p *Policy) Port(proto int, target netip.AddrPort) *Port {
	return &Port{policy: p, proto: proto, target: target, asking: make(chan struct{}, 1)}
}

// Route returns the way for a client. It never blocks; ok is false where the
// child has to be asked by Resolve.
func (p *Port) Route(client netip.AddrPort) (r Route, ok bool) {
	client = netip.AddrPortFrom(client.Addr().Unmap(), client.Port())
	if client.Addr().IsLoopback() {
		return Route{Target: p.target}, true
	}
	if known := p.known.Load(); known != nil {
		return known.route(client, p.target.Port()), true
	}
	return Route{}, false
}

// Resolve asks the child and returns the way for a client. It takes well under
// a millisecond, and some milliseconds for the first client; several callers
// share one question. Where the child does not answer in time, or ctx ends,
// the way is one that shows no client's address.
func (p *Port) Resolve(ctx context.Context, client netip.AddrPort) Route {
	client = netip.AddrPortFrom(client.Addr().Unmap(), client.Port())
	select {
	case p.asking <- struct{}{}:
		defer func() { <-p.asking }()
	case <-ctx.Done():
		plan := p.fallback()
		return plan.route(client, p.target.Port())
	}
	if r, ok := p.Route(client); ok { // another has asked meanwhile
		return r
	}
	plan := p.ask(ctx)
	if problem := plan.paths(client.Addr()).Problem; problem != "" {
		p.policy.say(problem)
	}
	return plan.route(client, p.target.Port())
}

// ask asks the child and keeps its plan.
func (p *Port) ask(ctx context.Context) plan {
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req := request{Proto: p.proto, Target: p.target, Backend: p.policy.cfg.Backend}
	var answer plan
	if _, err := p.policy.cfg.Child.Call(asking, planMethod, req, &answer); err != nil {
		answer = p.fallback()
		answer.V4.Problem, answer.V6.Problem = err.Error(), err.Error()
	} else {
		p.policy.backend.Store(&answer.Backend)
	}
	if ctx.Err() == nil {
		p.keep(&answer)
	}
	return answer
}

// keep keeps a plan for a while. A timer ends that, rather than Route read the
// clock.
func (p *Port) keep(plan *plan) {
	ttl := planTTL
	if plan.Silent {
		ttl = silentTTL
	}
	p.known.Store(plan)
	time.AfterFunc(ttl, func() { p.known.CompareAndSwap(plan, nil) })
}

// fallback is the plan where the child cannot be asked.
func (p *Port) fallback() plan {
	target, own := p.target.Addr(), p.policy.cfg.IPv4
	if target.Is6() {
		own = p.policy.cfg.IPv6
	}
	ways := paths{}
	switch {
	case !target.IsLoopback():
		ways.Plain = target
	case own.IsValid():
		ways.Plain, ways.PlainSource = target, own
	}
	return plan{V4: ways, V6: ways}
}
