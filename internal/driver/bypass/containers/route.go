package containers

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/relay"
	"rootlesskit/internal/sockio"
)

// router leads the clients of a port to a container. Where the container has an
// address on a network of the launcher's namespace, such as a bridge, connections are
// made from there, as to any other server, and the container sees the addresses of its
// clients. Otherwise they are made within the container's own namespace, and the
// container sees its own address: only the container could arrange a route back to the
// address of the client.
type router struct {
	container *container
	spec      api.PortSpec
	udp       bool
	known     atomic.Pointer[way] // nil: the child has to be asked
	last      atomic.Pointer[way] // the latest one from the launcher's namespace
}

var _ relay.Router = (*router)(nil)

// way is a router to one address of a container.
type way struct {
	to    netip.Addr
	place *place
	relay.Router
}

// wayTTL bounds how long connections may still lead to the old address of a container
// that has got another one.
const wayTTL = time.Second

// Route implements relay.Router.
func (r *router) Route(client, local netip.AddrPort) relay.Route {
	if w := r.known.Load(); w != nil {
		return w.Route(client, local)
	}
	return relay.Route{}
}

// Resolve implements relay.Router.
func (r *router) Resolve(client, local netip.AddrPort) relay.Route {
	w := r.known.Load()
	if w == nil {
		w = r.find()
	}
	if w == nil {
		return relay.Route{}
	}
	return w.Resolve(client, local)
}

// Reroute implements relay.Router.
func (r *router) Reroute(client, local netip.AddrPort, failed error) (relay.Route, bool) {
	if w := r.known.Load(); w != nil {
		return w.Reroute(client, local, failed)
	}
	return relay.Route{}, false
}

// Answered implements relay.Router.
func (r *router) Answered(client, target netip.AddrPort) {
	if w := r.known.Load(); w != nil {
		w.Answered(client, target)
	}
}

// find asks the child for the way, and keeps it for a while. It returns nil where there
// is none yet.
func (r *router) find() *way {
	c := r.container
	place := c.where()
	if place == nil {
		return nil
	}
	its, err := addressesOf(c.ctx, c.all.sb.Child, place.pid) // the network may have come later
	if err != nil {
		return nil
	}
	ours, err := addressesOf(c.ctx, c.all.sb.Child, 0)
	if err != nil {
		return nil
	}
	to, found := onLink(its, ours, c.all.uplink)
	last := r.last.Load()
	w := &way{to: to, place: place}
	switch {
	case found && last != nil && last.to == to && last.place == place:
		w = last // its router has learned about the container
	case found:
		w.Router = c.all.driver.RouterTo(r.udp, netip.AddrPortFrom(to, uint16(r.spec.ChildPort)), r.spec.ProxyProtocol != "")
		r.last.Store(w)
	default:
		w.Router = newInner(r, place, its)
	}
	r.known.Store(w)
	time.AfterFunc(wayTTL, func() { r.known.CompareAndSwap(w, nil) })
	return w
}

// onLink finds the address of a container on a network of the launcher's namespace.
// The network of the network driver does not count, since no container is on it, nor do
// addresses that the launcher's namespace has too.
func onLink(its, ours []address, uplink string) (netip.Addr, bool) {
	for _, a := range its {
		ip := a.Prefix.Addr()
		if slices.ContainsFunc(ours, func(o address) bool { return o.Prefix.Addr() == ip }) {
			continue
		}
		if slices.ContainsFunc(ours, func(o address) bool { return o.Link != uplink && o.Prefix.Contains(ip) }) {
			return ip, true
		}
	}
	return netip.Addr{}, false
}

// inner leads to a container from within its own namespace.
type inner struct {
	router *router
	place  *place
	to     netip.Addr // invalid: the container has only loopback
}

func newInner(r *router, p *place, its []address) relay.Router {
	i := inner{router: r, place: p}
	if len(its) > 0 {
		i.to = its[0].Prefix.Addr()
	}
	return i
}

// Route implements relay.Router.
func (i inner) Route(client, _ netip.AddrPort) relay.Route {
	to, sockType := i.to, unix.SOCK_STREAM
	if !to.IsValid() {
		if !client.Addr().Unmap().IsLoopback() {
			return relay.Route{} // the client would appear to be loopback
		}
		to = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	if i.router.udp {
		sockType = unix.SOCK_DGRAM
	}
	return relay.Route{
		Source: netip.AddrPortFrom(i.to, 0),
		Target: netip.AddrPortFrom(to, uint16(i.router.spec.ChildPort)),
		Pool:   i.router.container.pool(i.place, sockType, sockio.Family(to)),
	}
}

// Resolve implements relay.Router.
func (i inner) Resolve(client, local netip.AddrPort) relay.Route { return i.Route(client, local) }

// Reroute implements relay.Router.
func (i inner) Reroute(_, _ netip.AddrPort, _ error) (relay.Route, bool) { return relay.Route{}, false }

// Answered implements relay.Router.
func (i inner) Answered(_, _ netip.AddrPort) {}
