package sourceip

import (
	"net/netip"
	"slices"
)

// route applies the plan to a client. An address that refused is tried last. The
// target is invalid if there is no way.
func (p *plan) route(client netip.AddrPort, port uint16, refused netip.Addr) Route {
	r := p.straight(client, port).avoiding(refused, p.behindNAT(client.Addr()))
	r.Translated = p.Translated
	return r
}

func (p *plan) behindNAT(client netip.Addr) pair {
	if client.IsLoopback() {
		return p.LocalNAT
	}
	return p.paths(client).NAT
}

func (p *plan) straight(client netip.AddrPort, port uint16) Route {
	ip := client.Addr()
	if ip.IsLoopback() {
		return Route{Target: netip.AddrPortFrom(p.Local, port), Unserved: p.Silent}
	}
	ways := p.paths(ip)
	if ways.Real.IsValid() && p.genuine(ip) {
		return Route{Source: client, Target: netip.AddrPortFrom(ways.Real, port), Unserved: p.Silent}
	}
	r := Route{Unserved: p.Silent}
	if ways.Plain.IsValid() {
		r.Target = netip.AddrPortFrom(ways.Plain, port)
	}
	if ways.PlainSource.IsValid() {
		r.Source = netip.AddrPortFrom(ways.PlainSource, 0)
	}
	return r
}

// reroute applies the plan to a client that has a way.
func (p *plan) reroute(d Doubt, port uint16, refused netip.Addr) Route {
	now, stay := p.route(d.Client, port, refused), d.Route
	stay.Unserved, stay.Translated = p.Silent, p.Translated
	switch {
	case p.behindNAT(d.Client.Addr()).valid() && d.Lost:
		return now
	case !p.Found, !now.Target.IsValid():
		return stay
	case d.Answered && !d.Route.Unserved && slices.Contains(p.paths(d.Client.Addr()).Serving, d.Route.Target.Addr()):
		return stay
	}
	return now
}

// paths returns the ways for a client.
func (p *plan) paths(client netip.Addr) *paths {
	if client.Is6() {
		return &p.V6
	}
	return &p.V4
}

// genuine reports whether an address means the same client to the server as
// outside.
func (p *plan) genuine(ip netip.Addr) bool {
	if !ip.IsGlobalUnicast() && !(ip.Is4() && ip.IsLinkLocalUnicast()) {
		return false
	}
	return !slices.ContainsFunc(p.Inner, func(n netip.Prefix) bool { return n.Contains(ip) })
}
