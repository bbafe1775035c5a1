package sourceip

import "net/netip"

// Kind is what the address of a port's target stands for.
type Kind int

const (
	// Default is an address that follows from a rule: the port leads to where its
	// server is found.
	Default Kind = iota
	// PublishedAt is the address on which the port is published in the host: the port
	// leads there if the namespace has that address too, and to the loopback address
	// otherwise.
	PublishedAt
	// Given is an address that was requested: the port never leads to a server
	// that only has the other address family.
	Given
	// Own is any of the namespace's own addresses, or none: the port leads to servers
	// on all of them, but not to those on loopback alone. No client is shown as
	// loopback.
	Own
)

// implied reports whether the namespace need not have the address.
func (k Kind) implied(target netip.Addr) bool { return k == PublishedAt && !target.IsLoopback() }

// asked reports whether the address was asked for, and is no default.
func (k Kind) asked(target netip.Addr) bool {
	return k == Given || k == PublishedAt && target.IsLoopback()
}
