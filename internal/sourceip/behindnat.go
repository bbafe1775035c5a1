package sourceip

import "net/netip"

// If no server listens and the namespace has NAT, a NAT rule may lead further: at the
// loopback address, like the rules of container engines for ports on 127.0.0.1, or at
// the namespace's own address, like the rules of Kubernetes for NodePorts. Others make
// these rules, in many forms. So they are not parsed: the relay tries one address, and
// the other if that refuses or does not answer.

// pair has the two addresses; invalid if NAT does not matter.
type pair struct{ Lo, Own netip.Addr }

func (p pair) valid() bool { return p.Own.IsValid() }

// other returns the other address of the pair.
func (p pair) other(a netip.Addr) netip.Addr {
	if a == p.Lo {
		return p.Own
	}
	return p.Lo
}

// behindNAT returns the addresses of a family at which a NAT rule may exist for the port.
func (v view) behindNAT(f family) pair {
	switch {
	case !v.nat, !v.target.IsLoopback(), v.target.Is4() != f.lo.Is4(), !f.own.IsValid(), v.answers(v.v4), v.answers(v.v6):
		return pair{}
	}
	return pair{v.target, f.own}
}

// first returns the address to try first. More rules use the namespace's own
// address, but a requested address comes first.
func (v view) first(p pair) netip.Addr {
	if v.asked {
		return p.Lo
	}
	return p.Own
}

// avoiding avoids an address that refused, if there is another.
func (r Route) avoiding(refused netip.Addr, p pair) Route {
	r.Guess = p.valid()
	if r.Guess && r.Target.Addr() == refused {
		r.Target = netip.AddrPortFrom(p.other(refused), r.Target.Port())
	}
	return r
}

// Refused records that a connection to a target of a route was refused, and reports
// whether Resolve may find another way.
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

// lastRefused returns the address that refused last; invalid if none did.
func (p *Port) lastRefused() netip.Addr {
	if refused := p.refused.Load(); refused != nil {
		return *refused
	}
	return netip.Addr{}
}
