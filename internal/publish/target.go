package publish

import (
	"fmt"
	"net"
	"net/netip"

	"rootlesskit/api"
)

var loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// Target returns the address of the namespace that a port leads to.
//
// Without a child IP it is 127.0.0.1, except that a specific parent IP leads to the
// same address inside, if the namespace has it: 127.0.0.2 to 127.0.0.2, ::1 to ::1.
// There it matches the port rules of container engines. The wildcard :: leads to ::1.
func Target(spec api.PortSpec) (netip.AddrPort, error) {
	ip, err := targetIP(spec)
	return netip.AddrPortFrom(ip, uint16(spec.ChildPort)), err
}

// target returns where a port leads at first.
func (p *Ports) target(spec api.PortSpec) (netip.AddrPort, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.own.IsValid() {
		return netip.AddrPortFrom(p.own, uint16(spec.ChildPort)), nil
	}
	return Target(spec)
}

func targetIP(spec api.PortSpec) (netip.Addr, error) {
	if spec.ChildIP != "" {
		return parseIP("child", spec.ChildIP)
	}
	if spec.ParentIP == "" {
		return loopback4, nil
	}
	parent, err := parseIP("parent", spec.ParentIP)
	switch {
	case err != nil:
		return parent, err
	case parent == netip.IPv4Unspecified():
		return loopback4, nil
	case parent == netip.IPv6Unspecified():
		return netip.IPv6Loopback(), nil
	}
	return parent.WithZone(""), nil // zones only have a meaning in the host
}

func parseIP(whose, s string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(s)
	if err != nil {
		return ip, fmt.Errorf("invalid %s IP %q", whose, s)
	}
	return ip.Unmap(), nil
}

// HostIPv4 returns the host's first IPv4 address that is not loopback; it is
// invalid if there is none.
func HostIPv4() netip.Addr {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}
	}
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		if ip := prefix.Addr(); err == nil && ip.Is4() && !ip.IsLoopback() {
			return ip
		}
	}
	return netip.Addr{}
}
