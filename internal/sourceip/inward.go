package sourceip

import (
	"net/netip"
	"slices"
)

// A port may lead to the namespace's own addresses, whichever they are, rather than to
// one: that is how ports of containers are published. Then a server on loopback alone
// is not published, and clients on the host's loopback are seen at an address of the
// namespace's own, as by those who connect from outside of it.

// owned settles what such a port's target stands for. Its address is one that the
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
			f.own = v.target // it has several, and its server this one alone
		}
	}
}

// inward returns the view in which such a port leads to the loopback address, which
// does without marks where servers on all addresses are asked. Where NAT may lead
// further, that is by the address.
func (v view) inward() view {
	nobody := !v.found()
	switch {
	case !v.own || v.nat || !v.target.IsValid():
	case nobody && (v.udp || v.private):
		// A server that comes now must not be reached on loopback alone.
	default:
		v.target = v.targetFamily().lo
	}
	return v
}
