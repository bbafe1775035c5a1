package sourceip

import (
	"net/netip"
	"slices"
)

// plan says how the clients of one port reach its server.
type plan struct {
	// Backend is what makes the marks, or would: "nft", "iptables" or "none".
	Backend string `json:"backend"`
	// Silent says that no server was found, so the plan is not worth keeping.
	Silent bool `json:"silent,omitempty"`
	// Inner are the networks inside the namespace.
	Inner []netip.Prefix `json:"inner,omitempty"`
	// V4 and V6 are for the clients of that family.
	V4 paths `json:"v4"`
	V6 paths `json:"v6"`
}

// paths are the ways for clients of one family.
type paths struct {
	// Real is where to send to with the client's address as the source; invalid
	// where that cannot be done.
	Real netip.Addr `json:"real"`
	// Problem is why there is no Real, for the log.
	Problem string `json:"problem,omitempty"`
	// Plain is where to send to otherwise, from PlainSource, which is invalid
	// where the kernel chooses well itself. Plain is invalid where no source
	// would do but loopback.
	Plain       netip.Addr `json:"plain"`
	PlainSource netip.Addr `json:"plainSource"`
}

// view is what a plan follows from.
type view struct {
	udp       bool
	target    netip.Addr // of the port
	listeners []netip.Addr
	tracked   bool // conntrack is at work, and so there may be NAT
	v4, v6    family
	inner     []netip.Prefix
}

// family is the namespace's network of one address family.
type family struct {
	lo netip.Addr
	// own is an address of the namespace that is not loopback; invalid where
	// there is none. It is the source of what goes to the default route, if
	// routed.
	own    netip.Addr
	routed bool
	rules  bool  // the rules are in place
	marks  bool  // the marks are, or can be
	err    error // of making either
}

// both returns the families in the order of the agent's.
func (v *view) both() [2]*family { return [2]*family{&v.v4, &v.v6} }

// choose makes the plan, and tells whether it relies on marks.
func choose(v view) (p plan, needsMarks bool) {
	p = plan{
		Inner:  v.inner,
		Silent: v.target.IsLoopback() && !v.tracked && !v.answers(v.v4) && !v.answers(v.v6),
		V4:     v.paths(v.v4, v.v6),
		V6:     v.paths(v.v6, v.v4),
	}
	beyondLo := func(a netip.Addr) bool { return a.IsValid() && !a.IsLoopback() }
	return p, v.tracked || beyondLo(p.V4.Real) || beyondLo(p.V6.Real)
}

func (v view) paths(f, other family) paths {
	p := v.plain(f, other)
	if f.rules {
		p.Real = v.real(f)
	}
	switch {
	case p.Real.IsValid():
	case f.err != nil:
		p.Problem = f.err.Error()
	case v.answers(f) && !f.routed:
		p.Problem = "the namespace has no default route for the client's address family"
	}
	return p
}

// real returns the address to which packets from foreign sources of the
// family may be sent, so that the server gets them and its replies come back.
func (v view) real(f family) netip.Addr {
	lo := v.loopback(f)
	switch {
	case !v.target.IsLoopback():
		if f.marks && v.target.Is4() == lo.Is4() {
			return v.target
		}
	case v.listens(lo), v.onAll(f) && !v.udp:
		return lo
	case v.answers(f):
		if f.marks && f.routed {
			return f.own
		}
	case v.answers(v.v4), v.answers(v.v6): // in the other family
	case lo == v.target && (f.marks || !v.tracked):
		return lo // where NAT may know the server
	}
	return netip.Addr{}
}

// plain returns the way from an address of the namespace's own.
func (v view) plain(f, other family) paths {
	if !v.target.IsLoopback() {
		return paths{Plain: v.target}
	}
	for _, f := range []family{f, other} {
		lo := v.loopback(f)
		switch {
		case !f.own.IsValid():
		case v.listens(lo), v.onAll(f) && !v.udp:
			return paths{Plain: lo, PlainSource: f.own}
		case v.answers(f):
			return paths{Plain: f.own, PlainSource: f.own}
		}
	}
	for _, f := range []family{f, other} {
		if v.loopback(f) == v.target && f.own.IsValid() {
			return paths{Plain: v.target, PlainSource: f.own}
		}
	}
	return paths{}
}

// loopback returns the loopback address to use in a family: the target, where
// it is of that family.
func (v view) loopback(f family) netip.Addr {
	if v.target.IsLoopback() && v.target.Is4() == f.lo.Is4() {
		return v.target
	}
	return f.lo
}

// answers tells whether a server listens where a family's paths lead.
func (v view) answers(f family) bool {
	return v.listens(v.loopback(f)) || v.onAll(f) || f.own.IsValid() && v.listens(f.own)
}

func (v view) onAll(f family) bool {
	if f.lo.Is4() {
		return v.listens(netip.IPv4Unspecified())
	}
	return v.listens(netip.IPv6Unspecified())
}

func (v view) listens(a netip.Addr) bool { return slices.Contains(v.listeners, a) }

// route applies the plan to a client. The target is invalid where there is no
// way.
func (p *plan) route(client netip.AddrPort, port uint16) Route {
	ip := client.Addr()
	ways := p.paths(ip)
	if ways.Real.IsValid() && p.genuine(ip) {
		return Route{Source: client, Target: netip.AddrPortFrom(ways.Real, port)}
	}
	r := Route{}
	if ways.Plain.IsValid() {
		r.Target = netip.AddrPortFrom(ways.Plain, port)
	}
	if ways.PlainSource.IsValid() {
		r.Source = netip.AddrPortFrom(ways.PlainSource, 0)
	}
	return r
}

// paths returns the ways for a client.
func (p *plan) paths(client netip.Addr) *paths {
	if client.Is6() {
		return &p.V6
	}
	return &p.V4
}

// genuine tells whether an address means the same client to the server as it
// does outside.
func (p *plan) genuine(ip netip.Addr) bool {
	if !ip.IsGlobalUnicast() && !(ip.Is4() && ip.IsLinkLocalUnicast()) {
		return false
	}
	return !slices.ContainsFunc(p.Inner, func(n netip.Prefix) bool { return n.Contains(ip) })
}
