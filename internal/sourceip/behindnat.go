package sourceip

import "net/netip"

// Where nobody listens, and the namespace has NAT, a rule may lead on what comes for a
// port: at the loopback address, as container engines' for what is published on
// 127.0.0.1, or at the namespace's own, as Kubernetes' for NodePorts. The rules are
// others' and of many kinds. So they are not read: one address is tried, and the other
// where that refuses or does not answer.

// pair is the two addresses; invalid: NAT is not to be reckoned with.
type pair struct{ Lo, Own netip.Addr }

func (p pair) valid() bool { return p.Own.IsValid() }

// other returns the one that an address is not.
func (p pair) other(a netip.Addr) netip.Addr {
	if a == p.Lo {
		return p.Own
	}
	return p.Lo
}

// behindNAT returns the addresses of a family at which NAT may know the port.
func (v view) behindNAT(f family) pair {
	switch {
	case !v.nat, !v.target.IsLoopback(), v.target.Is4() != f.lo.Is4(), !f.own.IsValid(), v.answers(v.v4), v.answers(v.v6):
		return pair{}
	}
	return pair{v.target, f.own}
}

// first returns the one to begin with. The namespace's own address is that of more
// rules; an address that was asked for comes first all the same.
func (v view) first(p pair) netip.Addr {
	if v.asked {
		return p.Lo
	}
	return p.Own
}

// avoiding leads around an address that refused, where there is another.
func (r Route) avoiding(refused netip.Addr, p pair) Route {
	r.Guess = p.valid()
	if r.Guess && r.Target.Addr() == refused {
		r.Target = netip.AddrPortFrom(p.other(refused), r.Target.Port())
	}
	return r
}

// Refused notes that a connection to a target of a route was refused, and tells whether
// Resolve may know another way.
func (p *Port) Refused(client, target netip.AddrPort) bool {
	asker := p.asker(client.Addr().Unmap())
	asked := !asker.near() || !p.fixed() || asker.known.Load() != nil
	if asked && !asker.behindNAT.Load() {
		return false
	}
	p.refuses(target)
	return true
}

func (p *Port) refuses(target netip.AddrPort) {
	refused := target.Addr()
	p.refused.Store(&refused)
}

// lastRefused returns the address that refused last, invalid where none did.
func (p *Port) lastRefused() netip.Addr {
	if refused := p.refused.Load(); refused != nil {
		return *refused
	}
	return netip.Addr{}
}
