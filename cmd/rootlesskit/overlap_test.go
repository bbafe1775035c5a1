package main

import (
	"net/netip"
	"testing"
)

func TestOverlap(t *testing.T) {
	for _, tt := range []struct {
		host, cidr, text, fix string
	}{
		{"192.0.2.7/24", "10.0.2.0/24", "", ""},
		{"10.0.3.15/24", "10.0.2.0/24", "", ""},
		{"10.0.2.15/24", "10.0.2.0/24", "the host's own network 10.0.2.0/24 overlaps 10.0.2.0/24, the network inside: the host's neighbours there cannot be reached from inside", "choose another network, such as --cidr=10.0.0.0/24"},
		{"10.0.0.9/23", "10.0.0.0/16", "the host's own network 10.0.0.0/23 overlaps 10.0.0.0/16, the network inside: the host's neighbours there cannot be reached from inside", "choose another network with --cidr"},
		{"fd00::2/64", "10.0.2.0/24", "", ""},
	} {
		host := []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8"), netip.MustParsePrefix(tt.host)}
		text, fix := overlapWith(host, netip.MustParsePrefix(tt.cidr))
		if text != tt.text || fix != tt.fix {
			t.Errorf("%s on a host with %s: %q, fix %q", tt.cidr, tt.host, text, fix)
		}
	}
}
