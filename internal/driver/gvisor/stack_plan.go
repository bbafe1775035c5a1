package gvisor

import (
	"fmt"
	"net"
	"net/netip"

	"rootlesskit/internal/driver"
)

// plan assigns the addresses on the link between the child and the stack.
//
// IPv4 is laid out in the network of --cidr (10.0.2.0/24 by default): .1 is
// the gateway and name server, .3 a second address of the name server, .100
// the child. IPv6 has a fixed unique local network (RFC 4193), because every
// sandbox has a link of its own: ::1 is the gateway and name server, ::100 the
// child. It is not fd00::/64, which the host's own network may well use.
type plan struct {
	child4, child6     netip.Prefix // child6 is invalid without IPv6
	gateway4, gateway6 netip.Addr
	dns4               netip.Addr
	gatewayMAC         net.HardwareAddr
	childMAC           net.HardwareAddr
}

// network6 is the IPv6 network of the link.
var network6 = netip.MustParsePrefix("fdc8:5a1d:66e7::/64")

// Host numbers inside of --cidr.
const (
	gatewayHost = 1
	dnsHost     = 3
	childHost   = 100
)

func newPlan(cfg driver.NetworkConfig) (plan, error) {
	p := plan{
		// Locally administered, and the same in every sandbox: each link has
		// two ends only.
		gatewayMAC: net.HardwareAddr{0x52, 0x6b, 0, 0, 0, gatewayHost},
		childMAC:   net.HardwareAddr{0x52, 0x6b, 0, 0, 0, childHost},
	}
	network := cfg.CIDR.Masked()
	if !network.IsValid() || !network.Addr().Is4() {
		return plan{}, fmt.Errorf("--cidr=%s: need an IPv4 network, such as 10.0.2.0/24", cfg.CIDR)
	}
	// .100 must be a host of the network, not its broadcast address.
	if network.Bits() > 25 {
		return plan{}, fmt.Errorf("--cidr=%s: the network is too small, the prefix must be /25 or shorter", cfg.CIDR)
	}
	p.gateway4 = hostAddr(network, gatewayHost)
	p.dns4 = hostAddr(network, dnsHost)
	p.child4 = netip.PrefixFrom(hostAddr(network, childHost), network.Bits())
	if cfg.IPv6 {
		p.gateway6 = hostAddr(network6, 1)
		base := network6.Addr().As16()
		base[14] = 1 // ::100
		p.child6 = netip.PrefixFrom(netip.AddrFrom16(base), network6.Bits())
	}
	return p, nil
}

// hostAddr is the address with that host number, below 128, in a network
// whose last 7 bits are host bits.
func hostAddr(network netip.Prefix, host byte) netip.Addr {
	b := network.Addr().AsSlice()
	b[len(b)-1] |= host
	a, _ := netip.AddrFromSlice(b)
	return a
}

func (p *plan) hasIPv6() bool { return p.child6.IsValid() }

// link describes the network to the launcher.
func (p *plan) link(cfg driver.NetworkConfig) driver.Link {
	l := driver.Link{Ifname: cfg.Ifname, MTU: cfg.MTU, IPv4: p.child4, DNS: []netip.Addr{p.gateway4}}
	if p.hasIPv6() {
		l.IPv6 = p.child6
		l.DNS = append(l.DNS, p.gateway6)
	}
	return l
}

// prefixes and gateways are what the child's interface is configured with.
func (p *plan) prefixes() []netip.Prefix {
	if p.hasIPv6() {
		return []netip.Prefix{p.child4, p.child6}
	}
	return []netip.Prefix{p.child4}
}

func (p *plan) gateways() []netip.Addr {
	if p.hasIPv6() {
		return []netip.Addr{p.gateway4, p.gateway6}
	}
	return []netip.Addr{p.gateway4}
}

// own lists the addresses of the stack itself.
func (p *plan) own() []netip.Prefix {
	own := []netip.Prefix{
		netip.PrefixFrom(p.gateway4, p.child4.Bits()),
		netip.PrefixFrom(p.dns4, p.child4.Bits()),
	}
	if p.hasIPv6() {
		own = append(own, netip.PrefixFrom(p.gateway6, p.child6.Bits()))
	}
	return own
}

// neighbours are the hosts that the child has on the link: all are the stack.
func (p *plan) neighbours() (all []netip.Addr) {
	for _, own := range p.own() {
		all = append(all, own.Addr())
	}
	return all
}

// isOwn reports whether the stack itself has the address.
func (p *plan) isOwn(a netip.Addr) bool {
	return a == p.gateway4 || a == p.dns4 || (p.hasIPv6() && a == p.gateway6)
}

// isNameServer reports whether a datagram or connection to dst is for the
// embedded name server.
func (p *plan) isNameServer(dst netip.AddrPort) bool {
	return dst.Port() == dnsPort && p.isOwn(dst.Addr())
}

// onLink reports whether the address belongs to the link's own networks.
func (p *plan) onLink(a netip.Addr) bool {
	return p.child4.Masked().Contains(a) || (p.hasIPv6() && p.child6.Masked().Contains(a))
}

// gateway returns the gateway of the address's family.
func (p *plan) gateway(is6 bool) netip.Addr {
	if is6 {
		return p.gateway6
	}
	return p.gateway4
}
