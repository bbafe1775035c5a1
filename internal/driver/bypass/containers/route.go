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
// address on a network of the launcher's namespace, such as a bridge, it is reached
// from there, by the same routes as any other server: the container sees its
// clients. Else it is reached from within its own namespace, and sees its own
// address: the way back to the client's would be the container's to arrange.
type router struct {
	container *container
	spec      api.PortSpec
	udp       bool
	known     atomic.Pointer[way] // nil where the child has to be asked
	last      atomic.Pointer[way]
}

var _ relay.Router = (*router)(nil)

// way is a router to one address of a container.
type way struct {
	to    netip.Addr
	place *place
	relay.Router
}

// wayTTL bounds how long a container may be missed that has moved to another
// address.
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

// find asks the child for the way, and keeps it for a while; nil: there is none yet.
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
		w = last // it knows more by now
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

// onLink finds the address of a container that is on a network of the launcher's
// namespace. The network driver's own network is none: nothing there is a
// container's. Neither are the addresses of the launcher's namespace.
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
	to     netip.Addr // invalid: the container has loopback alone
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
			return relay.Route{} // the client would seem to be loopback
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
