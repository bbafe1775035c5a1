package relayed

import (
	"context"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/driver"
	"rootlesskit/internal/relay"
	"rootlesskit/internal/sourceip"
)

// sourceFlags are the driver's own flags.
type sourceFlags struct {
	transparent bool
	backend     string
}

func readSourceFlags(flags driver.Flags) sourceFlags {
	if flags == nil { // tests
		return sourceFlags{transparent: true, backend: "auto"}
	}
	return sourceFlags{flags.Bool("source-ip-transparent"), flags.String("source-ip-transparent-backend")}
}

// newSource makes the policy by which servers see the clients' addresses.
func newSource(ctx context.Context, f sourceFlags, sb driver.Sandbox, link driver.Link) *sourceip.Policy {
	backend := ""
	if f.transparent {
		backend = f.backend
		if backend == "" {
			backend = "auto"
		}
	}
	return sourceip.New(ctx, sourceip.Config{
		Child:   sb.Child,
		Backend: backend,
		IPv4:    link.IPv4.Addr(),
		IPv6:    link.IPv6.Addr(),
		Log:     sb.Log,
	})
}

// sourceExtra says by what, and for which protocols, servers see clients.
func (p *Ports) sourceExtra() map[string]string {
	backend := p.source.Backend()
	extra := map[string]string{"sourceIPTransparentBackend": backend}
	switch {
	case !p.flags.transparent:
	case backend == "none":
		extra["sourceIPTransparentProtocols"] = "tcp" // to servers that are not behind NAT
	default:
		extra["sourceIPTransparentProtocols"] = "tcp,udp"
	}
	return extra
}

// Router gives the relay its routes for one published port, see relay.TCPConfig.
type Router interface {
	Route(client, local netip.AddrPort) relay.Route
	Resolve(client, local netip.AddrPort) relay.Route
	Reroute(client, local netip.AddrPort, failed error) (relay.Route, bool)
}

// router leads to servers in the namespace.
type router struct {
	ctx  context.Context
	port *sourceip.Port
	// proxyHeader says that a connection begins with the PROXY protocol.
	proxyHeader bool
}

// RouterTo returns the router to a server that the namespace can reach. proxyHeader
// says that a connection begins with the PROXY protocol.
func (p *Ports) RouterTo(udp bool, to netip.AddrPort, proxyHeader bool) Router {
	return router{ctx: p.pools.ctx, port: p.source.Port(protocol(udp), to), proxyHeader: proxyHeader}
}

// router returns the router of a published port that leads to an address.
func (p *Ports) router(udp bool, spec api.PortSpec, to netip.AddrPort) Router {
	port := p.source.Port(protocol(udp), to)
	if spec.ChildIP == "" && spec.ParentIP != "" {
		port = p.source.PortPublishedAt(protocol(udp), to)
	}
	return router{ctx: p.pools.ctx, port: port, proxyHeader: spec.ProxyProtocol != ""}
}

func protocol(udp bool) int {
	if udp {
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_TCP
}

// Route never blocks; without a Target, Resolve has to be asked.
func (r router) Route(client, local netip.AddrPort) relay.Route {
	route, ok := r.port.Route(client)
	if !ok {
		return relay.Route{}
	}
	return r.relayRoute(route, client, local)
}

func (r router) Resolve(client, local netip.AddrPort) relay.Route {
	return r.relayRoute(r.port.Resolve(r.ctx, client), client, local)
}

// looker is a Router that looks again at flows in doubt, see relay.UDPConfig.
type looker interface {
	Look(flows []relay.Doubt) []relay.Route
}

// Look implements looker.
func (r router) Look(flows []relay.Doubt) []relay.Route {
	doubts := make([]sourceip.Doubt, len(flows))
	for i, f := range flows {
		was := sourceip.Route{Source: f.Route.Source, Target: f.Route.Target, Fixed: f.Route.Fixed}
		doubts[i] = sourceip.Doubt{Client: f.Client, Route: was, Answered: f.Answered, Mute: f.Mute}
	}
	routes := make([]relay.Route, len(flows))
	for i, route := range r.port.Look(r.ctx, doubts) {
		routes[i] = r.relayRoute(route, flows[i].Client, flows[i].Local)
	}
	return routes
}

// Reroute gives the client's port up and keeps its address: the port may be
// taken inside, by a server or by an old connection of the same client. For a way
// that is not answered Resolve may know another.
func (r router) Reroute(client, local netip.AddrPort, failed error) (relay.Route, bool) {
	if silent := (*relay.NoAnswer)(nil); errors.As(failed, &silent) {
		return relay.Route{}, !client.Addr().Unmap().IsLoopback() && r.port.Unanswered(silent.Target)
	}
	route, ok := r.port.Route(client)
	if !ok || route.Source.Port() == 0 || failed != unix.EADDRINUSE && failed != unix.EADDRNOTAVAIL {
		return relay.Route{}, false
	}
	route.Source = netip.AddrPortFrom(route.Source.Addr(), 0)
	return r.relayRoute(route, client, local), true
}

func (r router) relayRoute(to sourceip.Route, client, local netip.AddrPort) relay.Route {
	route := relay.Route{Source: to.Source, Target: to.Target, Unserved: to.Unserved, Fixed: to.Fixed}
	if r.proxyHeader && to.Target.IsValid() {
		route.Prelude = proxyHeader(client, local)
	}
	return route
}
