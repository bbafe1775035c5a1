package sourceip

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/question"
	"rootlesskit/internal/wire"
)

// Config configures the parent's side.
type Config struct {
	Child wire.Caller
	// Backend is "auto", "nft" or "iptables" (--source-ip-transparent-backend). If
	// it is empty, no client's own address is shown
	// (--source-ip-transparent=false).
	Backend string
	// IPv4 and IPv6 are addresses of the child, for use while it cannot be asked;
	// invalid if it has none.
	IPv4, IPv6 netip.Addr
	Log        *slog.Logger
}

// Policy decides with which source address clients reach the servers in the
// namespace. It starts no goroutines.
type Policy struct {
	cfg     Config
	backend atomic.Pointer[string]
	said    sync.Map // problems that were logged
	count   atomic.Int32
}

// New asks the child which backend is usable. Nothing changes in the namespace
// before the first client that is not on this host's loopback.
func New(ctx context.Context, cfg Config) *Policy {
	p := &Policy{cfg: cfg}
	none := "none"
	p.backend.Store(&none)
	if cfg.Backend == "" {
		return p
	}
	reply, _, err := probeMethod.Call(ctx, cfg.Child, request{Backend: cfg.Backend})
	if err != nil {
		p.say(err.Error())
		return p
	}
	if err := verifyBackend(reply.Backend); err != nil {
		p.say(err.Error())
		return p
	}
	p.backend.Store(&reply.Backend)
	if reply.Problem != "" {
		p.say(reply.Problem)
	}
	return p
}

// Backend returns the backend for real addresses: "nft", "iptables", or "none",
// with which TCP servers without NAT still see them. It may change when the
// first client arrives.
func (p *Policy) Backend() string { return *p.backend.Load() }

// maxSaid bounds the number of problems that are logged, and maxProblem the text of
// one, since a hostile child may invent new ones.
const (
	maxSaid    = 20
	maxProblem = 1 << 10
)

// say logs a problem once.
func (p *Policy) say(problem string) {
	problem = problem[:min(len(problem), maxProblem)]
	if _, known := p.said.Load(problem); known || p.count.Add(1) > maxSaid {
		return
	}
	if _, said := p.said.LoadOrStore(problem, true); !said {
		p.cfg.Log.Warn("some clients' addresses cannot be shown to servers in the namespace, the namespace's own address is used instead", "problem", problem)
	}
}

// Route is the route of one client into the namespace.
type Route struct {
	// Source is the address to bind the socket to; if invalid, do not bind.
	//
	// With a port, it is the client's address. It needs IP_TRANSPARENT, and
	// SO_REUSEADDR for a client that uses one port for several published ports. If
	// the port is in use nevertheless (bind fails with EADDRINUSE because of a
	// server on that port of the namespace, or connect with EADDRNOTAVAIL because
	// the client already has such a connection to this server), port 0 at least
	// keeps the address.
	//
	// With port 0, SO_REUSEADDR must not be set for UDP, or two sockets may get
	// the same port, and IP_BIND_ADDRESS_NO_PORT (Linux 4.2) should be set for
	// TCP, so that connections to different targets share ports.
	Source netip.AddrPort
	// Target is the address to connect to, possibly of another address family than
	// the client's. If it is invalid, there is no way, and the client must be
	// refused.
	Target netip.AddrPort
	// Unserved says that no server was found, or that the child did not answer, so
	// the route is a guess. Guess says that a NAT rule may exist for this target,
	// or for another.
	Unserved, Guess bool
	// Translated says that there is NAT in the namespace, by others: a rule may be
	// made for this target after the first packet, which does not apply to it.
	Translated bool
}

// Port decides for the clients of one published port.
type Port struct {
	policy  *Policy
	proto   int
	target  netip.AddrPort
	kind    Kind
	near    asker                      // for clients on this host's loopback
	far     [2]asker                   // for those beyond it, by family
	deaf    atomic.Pointer[netip.Addr] // see Unanswered; nil: none
	refused atomic.Pointer[netip.Addr] // see Refused; nil: none
	// answered is when a remote client's connection was last accepted, in Unix
	// nanoseconds: at an address beyond lo, and on lo.
	answered [2]atomic.Int64
	silence  sync.Once // is said
}

// planTTL bounds how long it may go unnoticed that a server has moved to
// another address. A plan without a server is not kept.
const planTTL = time.Second

// Port returns the decisions for a port that leads to target. proto is
// unix.IPPROTO_TCP or unix.IPPROTO_UDP. There is nothing to close.
func (p *Policy) Port(proto int, target netip.AddrPort, kind Kind) *Port {
	port := &Port{policy: p, proto: proto, target: target, kind: kind}
	port.near = asker{port: port, question: question.New[plan]()}
	for i, family := range families {
		port.far[i] = asker{port: port, family: family, question: question.New[plan]()}
	}
	return port
}

// fixed reports whether clients on loopback keep the same way as long as it serves them.
func (p *Port) fixed() bool {
	return p.proto == unix.IPPROTO_TCP && !p.kind.implied(p.target.Addr()) && p.kind != Own
}

// Route returns the route for a client. It never blocks; ok is false if Resolve
// has to ask the child.
func (p *Port) Route(client netip.AddrPort) (r Route, ok bool) {
	client = unmapped(client)
	asker := p.asker(client.Addr())
	if known := asker.known.Load(); known != nil {
		return known.route(client, p.target.Port(), p.lastRefused()), true
	}
	if asker.near() && p.fixed() && p.lastRefused() != p.target.Addr() {
		return Route{Target: p.target}, true
	}
	return Route{}, false
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// Resolve asks the child and returns the route for a client. It takes well
// under a millisecond, and some milliseconds for the first client; several
// callers share one question. If the child does not answer in time, or ctx
// ends, the route does not show the client's address.
func (p *Port) Resolve(ctx context.Context, client netip.AddrPort) Route {
	client = unmapped(client)
	asker := p.asker(client.Addr())
	plan := asker.ask(ctx, false, asker.current)
	if !client.Addr().IsLoopback() {
		if problem := plan.paths(client.Addr()).Problem; problem != "" {
			p.policy.say(problem)
		}
	}
	return plan.route(client, p.target.Port(), p.lastRefused())
}

// busyFor is how long after accepting a connection a server that does not answer is
// assumed to be busy: the kernel drops connections for which its queue has no room.
const busyFor = 2 * time.Second

// Answered records that a client's connection to a target of a route was accepted.
func (p *Port) Answered(client, target netip.AddrPort) {
	if refused := p.refused.Load(); refused != nil && *refused == target.Addr() {
		p.refused.CompareAndSwap(refused, nil)
	}
	if !client.Addr().Unmap().IsLoopback() {
		p.lastAnswer(target).Store(time.Now().UnixNano())
	}
}

func (p *Port) lastAnswer(target netip.AddrPort) *atomic.Int64 {
	if target.Addr().IsLoopback() {
		return &p.answered[1]
	}
	return &p.answered[0]
}

// Unanswered records that a connection to a target of a route was neither accepted
// nor refused, and reports whether Resolve may find another way to the server. The
// target is remembered, and logged once. If the other way is not answered either,
// both are equally good. A server that has recently accepted others is only busy.
func (p *Port) Unanswered(client, target netip.AddrPort) bool {
	asker := p.asker(client.Addr().Unmap())
	busy := time.Since(time.Unix(0, p.lastAnswer(target).Load())) < busyFor
	switch {
	case busy:
		return false
	case asker.behindNAT.Load():
		p.refuses(target)
		p.silence.Do(func() { p.saySilence(target.Addr()) })
		return true
	case asker.near(), !asker.another.Load():
		return false
	}
	deaf := target.Addr()
	if !p.deaf.CompareAndSwap(nil, &deaf) {
		was := p.deaf.Load()
		if was != nil && *was != deaf {
			p.deaf.CompareAndSwap(was, nil)
			return false
		}
		return was != nil // others may have found out in the meantime
	}
	asker.known.Store(nil)
	p.saySilence(deaf)
	return true
}

func (p *Port) saySilence(deaf netip.Addr) {
	p.policy.cfg.Log.Warn("connections to a server in the namespace are not answered, maybe for a packet filter there; its other address is tried",
		"port", p.target.Port(), "unanswered", deaf)
}

// Doubt is a client whose route may have changed.
type Doubt struct {
	Client netip.AddrPort
	Route  Route
	// Answered says that the server has answered what it got, Mute that it got
	// something and answered nothing, Lost that it refused, or none was known to be
	// there.
	Answered, Mute, Lost bool
}

// Look asks the child again, and returns the current routes of clients. A client
// stays where it is if no server is found, or if its own is still there.
func (p *Port) Look(ctx context.Context, doubts []Doubt) []Route {
	mute := slices.ContainsFunc(doubts, func(d Doubt) bool { return d.Mute })
	plans := map[*asker]plan{}
	for _, d := range doubts {
		if d.Lost && !d.Route.Unserved {
			p.refuses(d.Route.Target)
		}
		asker := p.asker(d.Client.Addr().Unmap())
		if _, asked := plans[asker]; !asked {
			plans[asker] = asker.ask(ctx, mute, nil)
		}
	}
	routes := make([]Route, len(doubts))
	for i, d := range doubts {
		d.Client = unmapped(d.Client)
		plan := plans[p.asker(d.Client.Addr())]
		routes[i] = plan.reroute(d, p.target.Port(), p.lastRefused())
		if routes[i] != d.Route && !d.Client.Addr().IsLoopback() {
			if problem := plan.paths(d.Client.Addr()).Problem; problem != "" {
				p.policy.say(problem)
			}
		}
	}
	return routes
}
