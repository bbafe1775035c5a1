package bypass

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/publish"
	"rootlesskit/internal/relay"
	"rootlesskit/internal/sockio"
)

// Where connections lead that come to the fallback, or to a shadow, although there are
// native servers.

// wrap returns a router that leads connections to natives where there are some, and
// else does what inner does.
func (p *port) wrap(inner relay.Router) relay.Router { return &router{inner, p} }

type router struct {
	relay.Router
	port *port
}

// Route implements relay.Router.
func (r *router) Route(client, local netip.AddrPort) relay.Route {
	if r.port.fronted.Load() {
		return relay.Route{}
	}
	return r.Router.Route(client, local)
}

// Resolve implements relay.Router.
func (r *router) Resolve(client, local netip.AddrPort) relay.Route {
	route, native := r.port.toNative(client, local)
	if native {
		return route
	}
	return r.Router.Resolve(client, local)
}

// toNative routes a connection to the fallback while there are natives: of another
// family than the servers' sockets, or made at the moment when one of several servers
// ended. The server sees an address of this host as its client, but never loopback for
// a client elsewhere. It returns false where there are no natives any more.
func (p *port) toNative(client, local netip.AddrPort) (relay.Route, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refresh()
	if len(p.natives) == 0 {
		return relay.Route{}, false
	}
	for _, n := range p.natives {
		if n.listening {
			return p.hostRoute(n, client.Addr().Unmap(), local.Addr().Unmap()), true
		}
	}
	return relay.Route{}, true // no server listens yet: the connection is refused
}

// hostRoute leads to the address of a native in the host.
func (p *port) hostRoute(n native, client, local netip.Addr) relay.Route {
	to := p.base.Addr.Addr()
	v4 := to.Is4() || n.family == unix.AF_INET || client.Is4() && !n.v6Only
	if to.IsUnspecified() {
		to = netip.IPv6Loopback()
		if v4 {
			to = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
	}
	route := relay.Route{Target: netip.AddrPortFrom(to, p.base.Addr.Port())}
	if !client.IsLoopback() {
		source := local
		if source.Is4() != to.Is4() || source.IsLoopback() || source.IsUnspecified() {
			source = publish.HostIPv4()
		}
		if !source.IsValid() || source.Is4() != to.Is4() {
			return relay.Route{} // there is no address that the server may see
		}
		route.Source = netip.AddrPortFrom(source.WithZone(""), 0)
	}
	route.Pool = p.driver.hostPool(sockio.Family(to))
	return route
}
