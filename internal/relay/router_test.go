package relay

import "net/netip"

// routes is a Router of functions; those that are nil know no way.
type routes struct {
	route, resolve func(client, local netip.AddrPort) Route
	reroute        func(client, local netip.AddrPort, failed error) (Route, bool)
}

func (r routes) Route(client, local netip.AddrPort) Route { return r.route(client, local) }

func (r routes) Resolve(client, local netip.AddrPort) Route {
	if r.resolve == nil {
		return Route{}
	}
	return r.resolve(client, local)
}

func (r routes) Reroute(client, local netip.AddrPort, failed error) (Route, bool) {
	if r.reroute == nil {
		return Route{}, false
	}
	return r.reroute(client, local, failed)
}

func (routes) Answered(_, _ netip.AddrPort) {}

// lookingRoutes is a Looker.
type lookingRoutes struct {
	routes
	look func([]Doubt) []Route
}

func (l lookingRoutes) Look(flows []Doubt) []Route { return l.look(flows) }
