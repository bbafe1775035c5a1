package relay

import "net/netip"

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
	// Unserved says that no server is known to be there: it is the best guess. Fixed
	// says that there is no other way, and never will be. UDP only.
	Unserved, Fixed bool
	// Direct is for the maker of routes alone: it gets it back, see Doubt.
	Direct bool
	// Prelude is sent to the server before the client's first byte (a PROXY
	// protocol header); usually nil. TCP only.
	Prelude []byte
	// Pool is where the socket comes from; nil is the port's pool for the
	// Target's family.
	Pool *Pool
}

// NoAnswer is the error of a way whose target neither accepts nor refuses.
type NoAnswer struct{ Target netip.AddrPort }

func (e *NoAnswer) Error() string { return "no answer from " + e.Target.String() }
