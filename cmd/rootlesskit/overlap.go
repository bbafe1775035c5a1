package main

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// overlap returns a warning if the host has an address in the network that a
// driver lays out inside, or "": the host's neighbours there cannot be reached
// from inside. fix is the option that avoids this.
func (a *app) overlap(network string, cidr netip.Prefix) (text, fix string) {
	if role := a.registry.Network(network); role == nil || !role.CIDR {
		return "", ""
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return "", "" // then there is no hint
	}
	var prefixes []netip.Prefix
	for _, addr := range addrs {
		if p, err := netip.ParsePrefix(addr.String()); err == nil {
			prefixes = append(prefixes, p)
		}
	}
	return overlapWith(prefixes, cidr)
}

func overlapWith(host []netip.Prefix, cidr netip.Prefix) (text, fix string) {
	overlaps := func(with netip.Prefix) int {
		return slices.IndexFunc(host, func(p netip.Prefix) bool { return p.Overlaps(with) })
	}
	at := overlaps(cidr)
	if at < 0 {
		return "", ""
	}
	text = fmt.Sprintf("the host's own network %s overlaps %s, the network inside: the host's neighbours there cannot be reached from inside",
		host[at].Masked(), cidr)
	for n := range 256 {
		free := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(n), 0}), 24)
		if overlaps(free) < 0 && !free.Overlaps(cidr) {
			return text, "choose another network, such as --cidr=" + free.String()
		}
	}
	return text, "choose another network with --cidr"
}
