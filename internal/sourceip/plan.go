package sourceip

import (
	"fmt"
	"net/netip"
	"slices"
)

// plan says how clients of one port reach its server.
type plan struct {
	// Backend is what makes the marks, or would make them: "nft", "iptables" or "none".
	Backend string `json:"backend"`
	// Silent says that no server was found, and that none can be behind NAT: the
	// plan is a guess.
	Silent bool `json:"silent,omitempty"`
	// Found says that a server was found.
	Found bool `json:"found,omitempty"`
	// Another says that there are two ways to a TCP server, see onLo.
	Another bool `json:"another,omitempty"`
	// Local is the destination for clients on the host's loopback, and LocalNAT the
	// addresses at which a NAT rule may exist for the port.
	Local    netip.Addr `json:"local"`
	LocalNAT pair       `json:"localNAT"`
	// Translated says that there is NAT by others.
	Translated bool `json:"translated,omitempty"`
	// Inner are the networks inside the namespace.
	Inner []netip.Prefix `json:"inner,omitempty"`
	// V4 and V6 are for clients of the respective family.
	V4 paths `json:"v4"`
	V6 paths `json:"v6"`
}

// paths are the ways for clients of one family.
type paths struct {
	// Real is the destination with the client's address as the source; invalid if
	// that is impossible.
	Real netip.Addr `json:"real"`
	// Problem says why there is no Real, for the log.
	Problem string `json:"problem,omitempty"`
	// Plain is the destination otherwise, from PlainSource, which is invalid if
	// the kernel chooses a good source itself. Plain is invalid if only a loopback
	// source would work.
	Plain       netip.Addr `json:"plain"`
	PlainSource netip.Addr `json:"plainSource"`
	// NAT has the addresses at which a NAT rule may exist for the port: the targets
	// are one of the two, or may be.
	NAT pair `json:"nat"`
	// Serving has the addresses from which a server would answer.
	Serving []netip.Addr `json:"serving,omitempty"`
}

// verify checks a plan from a child that the command may have taken over.
func (p *plan) verify() error {
	if len(p.Inner) > maxInner {
		return fmt.Errorf("the child names %d networks, more than %d", len(p.Inner), maxInner)
	}
	return verifyBackend(p.Backend)
}

func verifyBackend(name string) error {
	switch name {
	case "nft", "iptables", "none":
		return nil
	}
	return fmt.Errorf("the child names the unknown backend %.20q", name)
}

// view is the basis of a plan.
type view struct {
	udp       bool
	target    netip.Addr // of the port
	local     bool       // the namespace has this address
	asked     bool       // it was requested, and is not a default
	own       bool       // it represents all of the namespace's addresses, see owned
	private   bool       // a server listens on loopback, which own leaves out
	listeners []netip.Addr
	nat       bool         // there is NAT by others
	tracked   bool         // there may be NAT, since conntrack is in use
	paid      bool         // the marks add no cost, since conntrack is in use
	deaf      []netip.Addr // TCP connections there were not answered
	v4, v6    family
	inner     []netip.Prefix
}

// family is the namespace's network of one address family.
type family struct {
	lo netip.Addr
	// own is an address of the namespace other than loopback; invalid if there is
	// none. If routed, it is the source for packets to the default route.
	own    netip.Addr
	routed bool
	rules  bool  // the rules are in place
	marks  bool  // the marks are in place, or can be made
	carry  bool  // they bring back the answers of servers in the namespace itself
	err    error // of making rules or marks
}

// both returns the families in the order of the agent's.
func (v *view) both() [2]*family { return [2]*family{&v.v4, &v.v6} }

// choose makes the plan, and reports whether it relies on marks.
func choose(v view) (p plan, needsMarks bool) {
	p = plan{Inner: v.inner, Translated: v.nat, Found: v.found(), Local: v.nearby(), LocalNAT: v.behindNAT(v.targetFamily())}
	p.Silent = v.local && !v.nat && !p.Found
	v = v.inward()
	p.V4, p.V6 = v.paths(v.v4, v.v6), v.paths(v.v6, v.v4)
	p.Another = v.another(v.v4) || v.another(v.v6)
	beyondLo := func(a netip.Addr) bool { return a.IsValid() && !a.IsLoopback() }
	return p, v.tracked || beyondLo(p.V4.Real) || beyondLo(p.V6.Real)
}

// found reports whether a server was found.
func (v view) found() bool {
	if v.own || v.target.IsLoopback() {
		return v.answers(v.v4) || v.answers(v.v6)
	}
	return v.local && (v.listens(v.target) || v.onAll(v.targetFamily()))
}

func (v view) targetFamily() family {
	if v.target.Is4() {
		return v.v4
	}
	return v.v6
}

// nearby returns the destination for a source that the kernel chooses. A UDP server
// on the wildcard address answers from the first address of the namespace, or of lo,
// depending on where it was reached.
func (v view) nearby() netip.Addr {
	f := v.targetFamily()
	nat := v.behindNAT(f)
	switch {
	case nat.valid():
		return v.first(nat)
	case !v.udp || !v.local || v.listens(v.target) || !v.onAll(f):
	case v.target.IsLoopback():
		return f.lo
	case f.own.IsValid():
		return f.own
	}
	return v.target
}

func (v view) paths(f, other family) paths {
	p := v.plain(f, other)
	p.Serving = v.serving(f)
	if f.rules {
		p.Real = v.real(f)
	}
	switch {
	case p.Real.IsValid():
	case f.err != nil:
		p.Problem = f.err.Error()
	case v.needsRoute(f) && !f.routed:
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
		return v.beyondLo(f)
	case !v.udp && (v.listens(lo) || v.onAll(f)):
		return v.onLo(f, f.carry && f.routed, v.paid)
	case v.listens(lo):
		return lo
	case v.answers(f):
		if f.carry && f.routed {
			return f.own
		}
	case v.answers(v.v4), v.answers(v.v6): // in the other family
	case f.carry && f.routed && v.behindNAT(f).valid():
		return v.first(v.behindNAT(f))
	case v.udp && !f.routed && !v.tracked: // a server that starts now could not answer them
	case lo == v.target && (f.marks || !v.tracked):
		return lo // where a NAT rule may exist
	}
	return netip.Addr{}
}

// onLo chooses between the two ways to a TCP server that can be reached at the loopback
// address. A firewall may drop packets from elsewhere to it, as Kubernetes' does: the
// namespace's own address is better if it is possible and adds no cost.
func (v view) onLo(f family, possible, ownFirst bool) netip.Addr {
	lo := v.loopback(f)
	switch {
	case !possible || !v.another(f):
		return lo
	case v.isDeaf(lo):
		return f.own
	case v.isDeaf(f.own), !ownFirst:
		return lo
	}
	return f.own
}

// another reports whether a TCP server can be reached both at the namespace's own
// address and at the loopback address.
func (v view) another(f family) bool {
	return !v.udp && v.target.IsLoopback() && f.own.IsValid() &&
		(v.onAll(f) || v.listens(f.own) && v.listens(v.loopback(f)))
}

func (v view) isDeaf(a netip.Addr) bool { return slices.Contains(v.deaf, a) }

// beyondLo is like real, for a port that leads to an address that is not on lo.
func (v view) beyondLo(f family) netip.Addr {
	switch {
	case v.target.Is4() != f.lo.Is4():
	case !v.local:
		if f.marks {
			return v.target
		}
	case !f.carry || !f.routed: // the kernel could not answer, with or without marks
	case v.own && !v.nat: // there is no server to show an address to
	case v.udp && f.own.IsValid() && !v.listens(v.target) && v.onAll(f):
		return f.own // the server answers from there
	default:
		return v.target
	}
	return netip.Addr{}
}

// serving returns the addresses of a family at which a server listens, and from
// which it would answer.
func (v view) serving(f family) (all []netip.Addr) {
	for _, a := range []netip.Addr{v.loopback(f), f.own, v.target} {
		if a.IsValid() && (v.listens(a) || v.onAll(f) && a.Is4() == f.lo.Is4() && (!v.udp || a == f.own)) {
			all = append(all, a)
		}
	}
	return all
}

// plain returns the way for a source that is the namespace's own address.
func (v view) plain(f, other family) paths {
	if !v.target.IsLoopback() {
		return paths{Plain: v.nearby()}
	}
	for _, f := range []family{f, other} {
		lo := v.loopback(f)
		switch {
		case !f.own.IsValid():
		case !v.udp && (v.listens(lo) || v.onAll(f)):
			return paths{Plain: v.onLo(f, true, true), PlainSource: f.own}
		case v.listens(lo):
			return paths{Plain: lo, PlainSource: f.own}
		case v.answers(f):
			return paths{Plain: f.own, PlainSource: f.own}
		}
	}
	for _, f := range []family{f, other} {
		nat := v.behindNAT(f)
		switch {
		case nat.valid():
			return paths{Plain: v.first(nat), PlainSource: f.own, NAT: nat}
		case v.loopback(f) != v.target || !f.own.IsValid():
		case v.udp && !v.tracked: // a server on the wildcard address can answer there
			return paths{Plain: f.own, PlainSource: f.own}
		default:
			return paths{Plain: v.target, PlainSource: f.own}
		}
	}
	return paths{}
}

// needsRoute reports whether replies to clients of a family are routed like
// others before they are marked.
func (v view) needsRoute(f family) bool {
	if v.target.IsLoopback() {
		return v.answers(f)
	}
	return v.local && v.target.Is4() == f.lo.Is4() && (!v.own || v.nat)
}

// loopback returns the loopback address to use in a family: the target, if it
// is of that family.
func (v view) loopback(f family) netip.Addr {
	if v.target.IsLoopback() && v.target.Is4() == f.lo.Is4() {
		return v.target
	}
	return f.lo
}

// answers reports whether a server listens where a family's paths lead.
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
