package sourceip

import (
	"net/netip"
	"testing"
)

// ownView is a view of a port that leads to the namespace's own addresses, one of which
// is its target.
func ownView(udp bool, target string, listeners ...string) view {
	v := fullView(udp, target, listeners...)
	v.own = true
	v.owned()
	return v
}

func TestChooseOwn(t *testing.T) {
	noMarks := func(v view) view {
		v.v4.marks, v.v6.marks, v.v4.carry, v.v6.carry = false, false, false, false
		return v
	}
	nat := func(v view) view { v.nat, v.tracked = true, true; return v }
	noRoute := func(v view) view { v.v4.routed, v.v6.routed = false, false; return v }
	for name, c := range map[string]struct {
		view                  view
		v4, v6, plain4, local string
		marks, silent         bool
	}{
		"TCP on all":               {ownView(tcp, "10.0.2.100", "0.0.0.0", "::"), "127.0.0.1", "::1", "10.0.2.100", "10.0.2.100", false, false},
		"TCP on all, IPv4":         {ownView(tcp, "10.0.2.100", "0.0.0.0"), "127.0.0.1", "", "10.0.2.100", "10.0.2.100", false, false},
		"TCP on the address":       {ownView(tcp, "10.0.2.100", "10.0.2.100"), "10.0.2.100", "", "10.0.2.100", "10.0.2.100", true, false},
		"TCP on the second":        {ownView(tcp, "10.0.2.101", "10.0.2.101"), "10.0.2.101", "", "10.0.2.101", "10.0.2.101", true, false},
		"TCP on loopback alone":    {ownView(tcp, "10.0.2.100", "127.0.0.1", "::1"), "", "", "10.0.2.100", "10.0.2.100", false, true},
		"TCP, nobody":              {ownView(tcp, "10.0.2.100"), "127.0.0.1", "", "127.0.0.1", "10.0.2.100", false, true},
		"TCP without marks":        {noMarks(ownView(tcp, "10.0.2.100", "0.0.0.0")), "127.0.0.1", "", "10.0.2.100", "10.0.2.100", false, false},
		"TCP without a route":      {noRoute(ownView(tcp, "10.0.2.100", "0.0.0.0")), "127.0.0.1", "", "10.0.2.100", "10.0.2.100", false, false},
		"TCP with NAT":             {nat(ownView(tcp, "10.0.2.100", "0.0.0.0")), "10.0.2.100", "", "10.0.2.100", "10.0.2.100", true, false},
		"UDP on all":               {ownView(udp, "10.0.2.100", "0.0.0.0", "::"), "10.0.2.100", "fd00::100", "10.0.2.100", "10.0.2.100", true, false},
		"UDP on all, the second":   {ownView(udp, "10.0.2.101", "0.0.0.0"), "10.0.2.100", "", "10.0.2.100", "10.0.2.100", true, false},
		"UDP on loopback alone":    {ownView(udp, "10.0.2.100", "127.0.0.1"), "", "", "10.0.2.100", "10.0.2.100", false, true},
		"UDP, nobody":              {ownView(udp, "10.0.2.100"), "", "", "10.0.2.100", "10.0.2.100", false, true},
		"UDP without marks":        {noMarks(ownView(udp, "10.0.2.100", "0.0.0.0")), "", "", "10.0.2.100", "10.0.2.100", false, false},
		"UDP without a route":      {noRoute(ownView(udp, "10.0.2.100", "0.0.0.0")), "", "", "10.0.2.100", "10.0.2.100", false, false},
		"an address that has gone": {ownView(tcp, "172.17.0.2", "0.0.0.0"), "127.0.0.1", "", "10.0.2.100", "10.0.2.100", false, false},
		"none was known":           {ownView(tcp, "0.0.0.0", "0.0.0.0"), "127.0.0.1", "", "10.0.2.100", "10.0.2.100", false, false},
		"IPv6 alone":               {ownView(tcp, "fd00::100", "::", "0.0.0.0"), "127.0.0.1", "::1", "10.0.2.100", "fd00::100", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			p, marks := choose(c.view)
			if v4, v6, plain, local := text(p.V4.Real), text(p.V6.Real), text(p.V4.Plain), text(p.Local); v4 != c.v4 || v6 != c.v6 || plain != c.plain4 || local != c.local {
				t.Errorf("IPv4 %q, IPv6 %q, plain %q, local %q, want %q, %q, %q, %q", v4, v6, plain, local, c.v4, c.v6, c.plain4, c.local)
			}
			if marks != c.marks || p.Silent != c.silent {
				t.Errorf("marks %v, silent %v; want %v, %v", marks, p.Silent, c.marks, c.silent)
			}
		})
	}
}

// Nobody is shown as loopback, not even clients on the host's own.
func TestOwnIsNeverLoopback(t *testing.T) {
	clients := []netip.AddrPort{client4, client6, addrPort("127.0.0.1:1"), addrPort("[::1]:1"), addrPort("10.0.2.9:1")}
	servers := [][]string{nil, {"0.0.0.0"}, {"::", "0.0.0.0"}, {"::"}, {"127.0.0.1"}, {"127.0.0.1", "0.0.0.0"}, {"10.0.2.100"}, {"fd00::100"}}
	for _, target := range []string{"0.0.0.0", "10.0.2.100", "10.0.2.101", "fd00::100", "172.17.0.2"} {
		for _, listeners := range servers {
			for bits := range 1 << 6 {
				set := func(n int) bool { return bits>>n&1 == 1 }
				v := fullView(set(0), target, listeners...)
				v.own, v.nat, v.tracked = true, set(1), set(1)
				v.v4.marks, v.v4.carry, v.v6.marks, v.v6.carry = set(2), set(2), set(2), set(2)
				v.v4.routed, v.v6.routed = set(3), set(3)
				if set(4) {
					v.v6.own = netip.Addr{}
				}
				if set(5) {
					v.v4.own = netip.Addr{}
				}
				v.owned()
				p, _ := choose(v)
				p.Inner = []netip.Prefix{tap4.Masked()}
				for _, client := range clients {
					r := p.route(client, 80, netip.Addr{})
					source, to := r.Source.Addr(), r.Target.Addr()
					if source.IsLoopback() || !source.IsValid() && to.IsLoopback() {
						t.Errorf("%+v: %s appears as loopback: %v", v, client, r)
					}
					if alone := listeners != nil && addrs(listeners...)[0].IsLoopback() && len(listeners) == 1; alone && to.IsLoopback() {
						t.Errorf("%+v: %s reaches a server on loopback alone: %v", v, client, r)
					}
				}
			}
		}
	}
}

func TestServersOfOwnSeeTheClient(t *testing.T) {
	w := newWorld(t, detached)
	policy := w.policy(t, "auto")
	for i, c := range []struct {
		listen, target, client string
		tcp, udp               string // what the server sees; "" is the client itself
	}{
		{"0.0.0.0:1001", "10.0.2.100", "203.0.113.7:5001", "", ""},
		{"[::]:1002", "10.0.2.100", "203.0.113.7:5002", "", ""},
		{"[::]:1003", "10.0.2.100", "[2001:db8:1::7]:5003", "", ""},
		{"0.0.0.0:1004", "10.0.2.100", "[2001:db8:1::7]:5004", "10.0.2.100", "10.0.2.100"},
		{"10.0.2.100:1005", "10.0.2.100", "203.0.113.7:5005", "", ""},
		{"[::]:1006", "172.17.0.2", "203.0.113.7:5006", "", ""}, // an address that has gone
		{"0.0.0.0:1007", "0.0.0.0", "203.0.113.7:5007", "", ""},
		{"0.0.0.0:1008", "10.0.2.100", "127.0.0.1:5008", "10.0.2.100", "10.0.2.100"},
		{"[::]:1009", "10.0.2.100", "[::1]:5009", "10.0.2.100", "10.0.2.100"},
		{"0.0.0.0:1010", "10.0.2.100", "10.0.2.9:5010", "10.0.2.100", "10.0.2.100"}, // a neighbour
	} {
		for proto, want := range map[string]string{"tcp": c.tcp, "udp": c.udp} {
			w.serve(t, proto, c.listen)
			port := policy.Port(protoNumber(proto), netip.AddrPortFrom(netip.MustParseAddr(c.target), uint16(1001+i)), Own)
			client := addrPort(c.client)
			got := w.seen(t, proto, port.Resolve(t.Context(), client))
			if want == "" && got != client.String() || want != "" && addrPort(got).Addr().String() != want {
				t.Errorf("%s %s: the server sees %s of %s, want %q", proto, c.listen, got, client, want)
			}
		}
	}
}

func TestOwnLeavesLoopbackAlone(t *testing.T) {
	w := newWorld(t, detached)
	policy := w.policy(t, "auto")
	w.serve(t, "tcp", "127.0.0.1:1001")
	w.serve(t, "tcp", "[::1]:1001")
	port := policy.Port(protoNumber("tcp"), addrPort("10.0.2.100:1001"), Own)
	for _, client := range []netip.AddrPort{client4, client6, addrPort("127.0.0.1:4444")} {
		if _, err := w.dial(t, "tcp", port.Resolve(t.Context(), client)); err == nil {
			t.Errorf("%s reaches a server on loopback", client)
		}
	}
	if _, marks := w.programmed(t); marks {
		t.Error("marks were made for nobody")
	}
}
