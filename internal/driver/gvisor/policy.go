package gvisor

import (
	"net/netip"
)

// verdict says what happens to traffic from the namespace to an address.
type verdict int

const (
	allow      verdict = iota
	refuse             // as a host without such a service: RST, port unreachable
	prohibit           // as a firewall: administratively prohibited
	unroutable         // as a router without a route: net unreachable
	discard            // never legitimate: no answer
)

// policy decides what of the host the namespace may reach.
//
//   - The gateway's address represents the host's loopback address of the same
//     family, unless --disable-host-loopback is given.
//   - Loopback, unspecified (which connect(2) takes for loopback), multicast
//     and IPv4-mapped destinations never occur in legitimate packets. They are
//     always discarded: only the gateway's address leads to the host's loopback
//     interface.
//   - Other addresses of the link's own networks do not exist.
//   - Link-local addresses are not loopback: 169.254.169.254, where clouds
//     serve metadata and credentials of the machine, and fd00:ec2::/32, which
//     serves the same purpose, are reachable unless --disable-link-local is
//     given. IPv6 link-local addresses belong to the TAP itself and are never
//     forwarded.
//   - Everything else is outside. That includes the host's own non-loopback
//     addresses, as with slirp4netns: servers there are reachable for the
//     host's neighbours anyway.
type policy struct {
	plan           *plan
	hostLoopback   bool
	linkLocal      bool
	loopback4      netip.Addr
	loopback6      netip.Addr
	linkLocal4     netip.Prefix
	cloudMetadata6 netip.Prefix
}

func newPolicy(p *plan, disableHostLoopback, disableLinkLocal bool) policy {
	return policy{
		plan:           p,
		hostLoopback:   !disableHostLoopback,
		linkLocal:      !disableLinkLocal,
		loopback4:      netip.AddrFrom4([4]byte{127, 0, 0, 1}),
		loopback6:      netip.IPv6Loopback(),
		linkLocal4:     netip.MustParsePrefix("169.254.0.0/16"),
		cloudMetadata6: netip.MustParsePrefix("fd00:ec2::/32"),
	}
}

// outbound translates the address that the namespace connects to into the one
// that the host connects to.
func (p *policy) outbound(dst netip.Addr) (netip.Addr, verdict) {
	switch {
	case dst.Is4In6(), dst.IsLoopback(), dst.IsUnspecified(), dst.IsMulticast(),
		dst == netip.AddrFrom4([4]byte{255, 255, 255, 255}), isThisNetwork(dst):
		return netip.Addr{}, discard
	case p.plan.isOwn(dst):
		return p.ownAddress(dst)
	case p.plan.onLink(dst):
		return netip.Addr{}, unroutable
	case dst.Is6() && dst.IsLinkLocalUnicast():
		return netip.Addr{}, unroutable
	case p.linkLocal4.Contains(dst), p.cloudMetadata6.Contains(dst):
		if !p.linkLocal {
			return netip.Addr{}, prohibit
		}
	}
	return dst, allow
}

// isThisNetwork reports whether an address is in 0.0.0.0/8, of which Linux may
// route parts.
func isThisNetwork(a netip.Addr) bool { return a.Is4() && a.As4()[0] == 0 }

func (p *policy) ownAddress(dst netip.Addr) (netip.Addr, verdict) {
	if dst == p.plan.dns4 || !p.hostLoopback {
		return netip.Addr{}, refuse
	}
	if dst.Is6() {
		return p.loopback6, allow
	}
	return p.loopback4, allow
}

// inboundSource returns the source address that the namespace sees for a peer
// of the host: the peer's own address if it means the same inside, and
// otherwise the gateway's. It is never a loopback address or another one of the
// link, and has the family of the namespace's address.
func (p *policy) inboundSource(peer netip.Addr, is6 bool) netip.Addr {
	peer = peer.Unmap()
	if peer.Is6() != is6 || peer.IsLoopback() || peer.IsUnspecified() || peer.IsLinkLocalUnicast() ||
		peer.IsMulticast() || p.plan.onLink(peer) {
		return p.plan.gateway(is6)
	}
	return peer
}

// replySource returns the source address that the namespace sees for a datagram
// from an address of the host: the inverse of outbound.
func (p *policy) replySource(from netip.Addr) (netip.Addr, bool) {
	from = from.Unmap()
	if !from.IsLoopback() {
		return from, !p.plan.onLink(from)
	}
	return p.plan.gateway(from.Is6()), p.hostLoopback
}
