package publish

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/relay"
	"rootlesskit/internal/sourceip"
)

// router is the relay.Router to servers in the namespace.
type router struct {
	ctx  context.Context
	port atomic.Pointer[sourceip.Port]
	// proxyHeader says that a connection begins with the PROXY protocol.
	proxyHeader bool
}

// RouterTo returns a router to a server that the namespace can reach. proxyHeader
// says that a connection begins with the PROXY protocol.
func (p *Ports) RouterTo(udp bool, to netip.AddrPort, proxyHeader bool) relay.Router {
	return p.newRouter(p.source.Port(protocol(udp), to, sourceip.Default), proxyHeader)
}

func (p *Ports) newRouter(port *sourceip.Port, proxyHeader bool) *router {
	r := &router{ctx: p.pools.ctx, proxyHeader: proxyHeader}
	r.port.Store(port)
	return r
}

// router returns the router of a published port that leads to an address, or to own, if
// that is valid.
func (p *Ports) router(udp bool, spec api.PortSpec, to netip.AddrPort, own netip.Addr) *router {
	kind := sourceip.Default
	switch {
	case own.IsValid():
		kind, to = sourceip.Own, netip.AddrPortFrom(own, to.Port())
	case spec.ChildIP != "":
		kind = sourceip.Given
	case namesParent(spec):
		kind = sourceip.PublishedAt
	}
	return p.newRouter(p.source.Port(protocol(udp), to, kind), spec.ProxyProtocol != "")
}

// namesParent reports whether a port is published on one address of the host.
func namesParent(spec api.PortSpec) bool {
	parent, err := netip.ParseAddr(spec.ParentIP)
	return err == nil && !parent.Unmap().IsUnspecified()
}

func protocol(udp bool) int {
	if udp {
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_TCP
}

// Route implements relay.Router. If it returns no Target, Resolve has to be called.
func (r *router) Route(client, local netip.AddrPort) relay.Route {
	route, ok := r.port.Load().Route(client)
	if !ok {
		return relay.Route{}
	}
	return r.relayRoute(route, client, local)
}

func (r *router) Resolve(client, local netip.AddrPort) relay.Route {
	return r.relayRoute(r.port.Load().Resolve(r.ctx, client), client, local)
}

// Answered implements relay.Router.
func (r *router) Answered(client, target netip.AddrPort) { r.port.Load().Answered(client, target) }

// Look implements relay.Looker.
func (r *router) Look(flows []relay.Doubt) []relay.Route {
	doubts := make([]sourceip.Doubt, len(flows))
	for i, f := range flows {
		was := sourceip.Route{Source: f.Route.Source, Target: f.Route.Target,
			Unserved: f.Route.Unserved, Guess: f.Route.Guess, Translated: f.Route.Translated}
		doubts[i] = sourceip.Doubt{Client: f.Client, Route: was, Answered: f.Answered, Mute: f.Mute, Lost: f.Lost}
	}
	routes := make([]relay.Route, len(flows))
	for i, route := range r.port.Load().Look(r.ctx, doubts) {
		routes[i] = r.relayRoute(route, flows[i].Client, flows[i].Local)
	}
	return routes
}

// Reroute implements relay.Router. It gives up the client's port and keeps its
// address: the port may be in use inside, by a server or by an old connection of
// the same client. For a route that is not answered, Resolve may find another.
func (r *router) Reroute(client, local netip.AddrPort, failed error) (relay.Route, bool) {
	if silent := (*relay.NoAnswer)(nil); errors.As(failed, &silent) {
		return relay.Route{}, r.port.Load().Unanswered(client, silent.Target)
	}
	if refused := (*relay.Refused)(nil); errors.As(failed, &refused) {
		return relay.Route{}, r.port.Load().Refused(client, refused.Target)
	}
	route, ok := r.port.Load().Route(client)
	if !ok || route.Source.Port() == 0 {
		return relay.Route{}, false
	}
	route.Source = netip.AddrPortFrom(route.Source.Addr(), 0)
	return r.relayRoute(route, client, local), true
}

func (r *router) relayRoute(to sourceip.Route, client, local netip.AddrPort) relay.Route {
	route := relay.Route{Source: to.Source, Target: to.Target, Unserved: to.Unserved, Guess: to.Guess, Translated: to.Translated}
	if r.proxyHeader && to.Target.IsValid() {
		route.Prelude = proxyHeader(client, local)
	}
	return route
}
