package relay

import "net/netip"

// Router knows the ways of the clients of one port to their servers. For UDP it may be
// a Looker.
type Router interface {
	// Route is asked for each connection, of a client that was accepted at local, and
	// once for each flow. It is called on a loop and must not block. The Prelude is
	// that of the first route with a Target.
	Route(client, local netip.AddrPort) Route
	// Resolve is asked, on a goroutine of its own, where Route has no Target; it may
	// block for a while. Without a Target here either there is no way.
	Resolve(client, local netip.AddrPort) Route
	// Reroute is asked, once for a connection, where the route could not be taken;
	// false gives it up. Where it returns no Target, Resolve is asked. failed is a
	// *Refused, a *NoAnswer, which leaves the way as it is where there is no other,
	// or else an errno. TCP only.
	Reroute(client, local netip.AddrPort, failed error) (Route, bool)
	// Answered is told where a connection was accepted. It is called on a loop and
	// must not block. TCP only.
	Answered(client, target netip.AddrPort)
}

// Looker is implemented by a Router that answers for many flows at once.
type Looker interface {
	// Look returns the ways of flows that are in doubt, as they are at the time of
	// the call, in the order of its argument. It is called on a goroutine of its own,
	// one call of a port at a time, and may block for a while. Without it, Route and
	// Resolve are asked for each.
	Look([]Doubt) []Route
}

// RouteFunc is a Router that knows all ways at once.
type RouteFunc func(client, local netip.AddrPort) Route

// Route implements Router.
func (f RouteFunc) Route(client, local netip.AddrPort) Route { return f(client, local) }

// Resolve implements Router.
func (f RouteFunc) Resolve(client, local netip.AddrPort) Route { return f(client, local) }

// Reroute implements Router.
func (f RouteFunc) Reroute(_, _ netip.AddrPort, _ error) (Route, bool) { return Route{}, false }

// Answered implements Router.
func (f RouteFunc) Answered(_, _ netip.AddrPort) {}

// Route says how one client is connected.
type Route struct {
	// Source is what the child-side socket is bound to, so that the server
	// sees it as its peer. A foreign address needs IP_TRANSPARENT, which the
	// maker of the pool's sockets sets. Port 0 takes any; the zero value does
	// not bind.
	Source netip.AddrPort
	// Target is the address in the namespace to connect to. The family of the
	// socket is its family.
	Target netip.AddrPort
	// Unserved says that no server is known to be there: it is the best guess. Guess
	// says that there is another way, which Look knows where this one is refused: what
	// was sent is sent there again. UDP only.
	Unserved, Guess bool
	// Direct is for the maker of routes alone: it gets it back, see Doubt.
	Direct bool
	// Prelude is sent to the server before the client's first byte (a PROXY
	// protocol header); usually nil. TCP only.
	Prelude []byte
	// Pool is where the socket comes from; nil is the port's pool for the
	// Target's family.
	Pool *Pool
}

// Refused is the error of a way whose target refuses, or cannot be reached.
type Refused struct {
	Target netip.AddrPort
	Err    error
}

func (e *Refused) Error() string { return e.Target.String() + ": " + e.Err.Error() }
func (e *Refused) Unwrap() error { return e.Err }

// NoAnswer is the error of a way whose target neither accepts nor refuses.
type NoAnswer struct{ Target netip.AddrPort }

func (e *NoAnswer) Error() string { return "no answer from " + e.Target.String() }
