package relay

import "net/netip"

// Router knows the routes from the clients of one port to their servers. For UDP it
// may also be a Looker.
type Router interface {
	// Route returns the route of a client that was accepted at local. It is called
	// once for each connection and for each flow, on a loop, and must not block. The
	// Prelude of the first route with a Target is used.
	Route(client, local netip.AddrPort) Route
	// Resolve is called, on a goroutine of its own, if Route returns no Target; it
	// may block for a while. If it returns no Target either, there is no route.
	Resolve(client, local netip.AddrPort) Route
	// Reroute is called, once for a connection, if its route failed. If it returns
	// false, there is no other route: the connection is given up, or keeps waiting
	// after a *NoAnswer. If it returns no Target, Resolve is called. failed is a
	// *Refused, a *NoAnswer, or else an errno. TCP only.
	Reroute(client, local netip.AddrPort, failed error) (Route, bool)
	// Answered is called when a server has accepted a connection. It is called on
	// a loop and must not block. TCP only.
	Answered(client, target netip.AddrPort)
}

// Looker is implemented by a Router that can look up many flows at once.
type Looker interface {
	// Look returns the current routes of flows in doubt, in the order of its
	// argument. It is called on a goroutine of its own, one call per port at a time,
	// and may block for a while. Without it, Route and Resolve are called for each
	// flow.
	Look([]Doubt) []Route
}

// RouteFunc is a Router that always knows the route.
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
	// Source is the address to which the socket in the namespace is bound, so that
	// the server sees it as its peer. A foreign address needs IP_TRANSPARENT,
	// which the pool's sockets have. Port 0 means any port; the zero value does
	// not bind.
	Source netip.AddrPort
	// Target is the address in the namespace to connect to. The family of the
	// socket is its family.
	Target netip.AddrPort
	// Unserved says that no server is known at the Target, which is the best guess.
	// Guess says that there is another route, which Look returns if this one is
	// refused; the datagrams that were sent are sent there again. A connection waits
	// longer for the answer of a guess, which may be a container that is starting.
	Unserved, Guess bool
	// Translated says that there is NAT in the namespace. A connection that is not
	// answered is made anew, though the server then sees another port of its client.
	// Without a port in Source, that is done in any case. TCP only.
	Translated bool
	// Direct is for the Router only, which gets it back in a Doubt.
	Direct bool
	// Prelude is sent to the server before the client's first byte (a PROXY
	// protocol header); usually nil. TCP only.
	Prelude []byte
	// Pool provides the socket; nil means the port's pool for the Target's family.
	Pool *Pool
}

// Refused is the error of a route whose target refuses, or cannot be reached.
type Refused struct {
	Target netip.AddrPort
	Err    error
}

func (e *Refused) Error() string { return e.Target.String() + ": " + e.Err.Error() }
func (e *Refused) Unwrap() error { return e.Err }

// NoAnswer is the error of a route whose target neither accepts nor refuses.
type NoAnswer struct{ Target netip.AddrPort }

func (e *NoAnswer) Error() string { return "no answer from " + e.Target.String() }
