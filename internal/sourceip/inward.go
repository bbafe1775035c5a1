package sourceip

import (
	"net/netip"
	"slices"
)

// A port may lead to all of the namespace's own addresses, instead of to one. This is
// how ports of containers are published. Then a server that only listens on loopback
// is not published, and clients on the host's loopback are seen with one of the
// namespace's own addresses.

// owned determines what such a port's target means. Its address is one that the
// namespace has had, or none.
func (v *view) owned() {
	v.private = slices.ContainsFunc(v.listeners, netip.Addr.IsLoopback)
	v.listeners = slices.DeleteFunc(v.listeners, netip.Addr.IsLoopback)
	if v.target.IsUnspecified() || v.target.IsLoopback() || !v.local {
		v.target = v.targetFamily().own
		for _, f := range v.both() {
			if !v.target.IsValid() {
				v.target = f.own
			}
		}
	}
	v.local = v.target.IsValid()
	for _, f := range v.both() {
		if f.lo.Is4() == v.target.Is4() && v.listens(v.target) && !v.onAll(*f) {
			f.own = v.target // it has several, and its server only listens on this one
		}
	}
}

// inward returns a view in which such a port leads to the loopback address, which
// needs no marks for servers on all addresses. If NAT may lead further, it depends
// on the address.
func (v view) inward() view {
	nobody := !v.found()
	switch {
	case !v.own || v.nat || !v.target.IsValid():
	case nobody && (v.udp || v.private):
		// A server that starts now must not be reached if it only listens on loopback.
	default:
		v.target = v.targetFamily().lo
	}
	return v
}
