package builtin

import (
	"log/slog"
	"net/netip"
	"sync"

	"rootlesskit/internal/driver"
	"rootlesskit/internal/relay"
)

// sourcePolicy decides how a client reaches its server: to which address of the
// namespace, and from which.
//
// Servers trust their loopback. So a client may appear as loopback inside only
// where it is on loopback in the host (CVE-2021-20199 is what happens
// otherwise). Others appear as the namespace's own address on its network:
//
//   - TCP connects from that address to 127.0.0.1, so that servers which listen
//     on loopback alone are reached as well.
//   - A UDP server on all addresses answers a peer at its own address from that
//     same address, not from the 127.0.0.1 that was asked. So UDP is sent to the
//     namespace's address, where a server on loopback alone does not hear it.
//
// A namespace without a network (--net=none) has loopback addresses only.
type sourcePolicy struct {
	own4, own6 netip.Addr // the namespace's own addresses; invalid: none
	log        *slog.Logger
	told       sync.Once
}

func newSourcePolicy(link driver.Link, log *slog.Logger) *sourcePolicy {
	return &sourcePolicy{own4: link.IPv4.Addr(), own6: link.IPv6.Addr(), log: log}
}

// backend is what shows servers the real addresses of clients; none
// does.
func (p *sourcePolicy) backend() string { return "none" }

// tcp returns the route of a client whose port leads to target.
func (p *sourcePolicy) tcp(client netip.Addr, target netip.AddrPort) relay.Route {
	route := relay.Route{Target: target}
	if own := p.disguise(client, target.Addr()); own.IsValid() {
		route.Source = netip.AddrPortFrom(own, 0)
	}
	return route
}

// udp is tcp for datagrams.
func (p *sourcePolicy) udp(client netip.Addr, target netip.AddrPort) relay.Route {
	if own := p.disguise(client, target.Addr()); own.IsValid() {
		target = netip.AddrPortFrom(own, target.Port())
	}
	return relay.Route{Target: target}
}

// disguise returns the address that a client has to appear as; invalid: any.
func (p *sourcePolicy) disguise(client, target netip.Addr) netip.Addr {
	if !target.IsLoopback() || client.Unmap().IsLoopback() {
		return netip.Addr{}
	}
	own := p.own4
	if target.Is6() {
		own = p.own6
	}
	if !own.IsValid() {
		p.told.Do(func() {
			p.log.Warn("remote clients appear as loopback to servers in the namespace, which has no other address of this family",
				"client", client, "target", target)
		})
	}
	return own
}
