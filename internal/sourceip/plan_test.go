package sourceip

import (
	"errors"
	"net/netip"
	"testing"
)

func addrs(s ...string) (all []netip.Addr) {
	for _, a := range s {
		all = append(all, netip.MustParseAddr(a))
	}
	return all
}

// A view of a namespace with both families and everything at hand.
func fullView(udp bool, target string, listeners ...string) view {
	to := netip.MustParseAddr(target)
	return view{
		udp: udp, target: to, listeners: addrs(listeners...),
		local: to.IsLoopback() || to == tap4.Addr() || to == tap6.Addr() || to == second4.Addr(),
		v4:    family{lo: loopback4.Addr(), own: tap4.Addr(), routed: true, rules: true, marks: true, carry: true},
		v6:    family{lo: loopback6.Addr(), own: tap6.Addr(), routed: true, rules: true, marks: true, carry: true},
	}
}

const tcp, udp = false, true

// choice is what follows from a view.
type choice struct {
	view   view
	v4, v6 string // what Real is
	plain4 string // what Plain of V4 is
	marks  bool
	silent bool
}

// choices are views, and what follows from them.
func choices() map[string]choice {
	noCarry := func(v view) view { v.v4.carry, v.v6.carry = false, false; return v }
	noMarks := func(v view) view { v.v4.marks, v.v6.marks = false, false; return noCarry(v) }
	paid := func(v view) view { v.paid = true; return v }
	deaf := func(v view, at string) view { v.deaf = addrs(at); return v }
	noRoute := func(v view) view { v.v4.routed, v.v6.routed = false, false; return v }
	nat := func(v view) view { v.nat, v.tracked = true, true; return v }
	asked := func(v view) view { v.asked = true; return v }
	return map[string]choice{
		"TCP on all":                  {fullView(tcp, "127.0.0.1", "0.0.0.0", "::"), "127.0.0.1", "::1", "10.0.2.100", false, false},
		"TCP on loopback":             {fullView(tcp, "127.0.0.1", "127.0.0.1"), "127.0.0.1", "", "127.0.0.1", false, false},
		"TCP on another loopback":     {fullView(tcp, "127.0.0.2", "127.0.0.2"), "127.0.0.2", "", "127.0.0.2", false, false},
		"TCP on the address alone":    {fullView(tcp, "127.0.0.1", "10.0.2.100"), "10.0.2.100", "", "10.0.2.100", true, false},
		"TCP on all with NAT":         {nat(fullView(tcp, "127.0.0.1", "0.0.0.0")), "127.0.0.1", "", "10.0.2.100", true, false},
		"UDP on all":                  {fullView(udp, "127.0.0.1", "0.0.0.0", "::"), "10.0.2.100", "fd00::100", "10.0.2.100", true, false},
		"UDP on loopback":             {fullView(udp, "127.0.0.1", "127.0.0.1"), "127.0.0.1", "", "127.0.0.1", false, false},
		"UDP on all and loopback":     {fullView(udp, "127.0.0.1", "0.0.0.0", "127.0.0.1"), "127.0.0.1", "", "127.0.0.1", false, false},
		"UDP on all without marks":    {noMarks(fullView(udp, "127.0.0.1", "0.0.0.0")), "", "", "10.0.2.100", false, false},
		"nobody":                      {fullView(tcp, "127.0.0.1"), "127.0.0.1", "", "127.0.0.1", false, true},
		"nobody but NAT":              {nat(fullView(udp, "127.0.0.1")), "10.0.2.100", "", "10.0.2.100", true, false},
		"NAT, 127.0.0.1 asked for":    {asked(nat(fullView(udp, "127.0.0.1"))), "127.0.0.1", "", "127.0.0.1", true, false},
		"NAT for IPv6":                {nat(fullView(tcp, "::1")), "", "fd00::100", "fd00::100", true, false},
		"NAT without marks":           {noMarks(nat(fullView(udp, "127.0.0.1"))), "", "", "10.0.2.100", true, false},
		"NAT without a route":         {noRoute(nat(fullView(udp, "127.0.0.1"))), "127.0.0.1", "", "10.0.2.100", true, false},
		"a container's address":       {fullView(tcp, "172.17.0.2"), "172.17.0.2", "", "172.17.0.2", true, false},
		"a container's without marks": {noMarks(fullView(tcp, "172.17.0.2")), "", "", "172.17.0.2", false, false},
		"a stranger's listener":       {fullView(tcp, "127.0.0.1", "172.17.0.1"), "127.0.0.1", "", "127.0.0.1", false, true},
		"UDP behind a firewall":       {noCarry(fullView(udp, "127.0.0.1", "0.0.0.0")), "", "", "10.0.2.100", false, false},
		"TCP behind a firewall":       {noCarry(fullView(tcp, "127.0.0.1", "0.0.0.0")), "127.0.0.1", "", "10.0.2.100", false, false},
		"a container and a firewall":  {noCarry(fullView(tcp, "172.17.0.2")), "172.17.0.2", "", "172.17.0.2", true, false},
		"an address and a firewall":   {noCarry(fullView(tcp, "10.0.2.100", "0.0.0.0")), "", "", "10.0.2.100", false, false},
		"an address without a route":  {noRoute(fullView(tcp, "10.0.2.100", "0.0.0.0")), "", "", "10.0.2.100", false, false},
		"a container without a route": {noRoute(fullView(tcp, "172.17.0.2")), "172.17.0.2", "", "172.17.0.2", true, false},
		"nobody at an address":        {fullView(tcp, "10.0.2.100"), "10.0.2.100", "", "10.0.2.100", true, true},
		"UDP on all, second address":  {fullView(udp, "10.0.2.101", "0.0.0.0"), "10.0.2.100", "", "10.0.2.100", true, false},
		"UDP on the second address":   {fullView(udp, "10.0.2.101", "0.0.0.0", "10.0.2.101"), "10.0.2.101", "", "10.0.2.101", true, false},
		"TCP, lo does not answer":     {deaf(fullView(tcp, "127.0.0.1", "0.0.0.0"), "127.0.0.1"), "10.0.2.100", "", "10.0.2.100", true, false},
		"TCP, marks are there":        {paid(fullView(tcp, "127.0.0.1", "0.0.0.0")), "10.0.2.100", "", "10.0.2.100", true, false},
		"... and do not answer":       {deaf(paid(fullView(tcp, "127.0.0.1", "0.0.0.0")), "10.0.2.100"), "127.0.0.1", "", "127.0.0.1", false, false},
		"IPv6 target, IPv4 server":    {fullView(tcp, "::1", "127.0.0.1"), "127.0.0.1", "", "127.0.0.1", false, false},
	}
}

func TestChoose(t *testing.T) {
	for name, c := range choices() {
		t.Run(name, func(t *testing.T) {
			p, marks := choose(c.view)
			if got := text(p.V4.Real); got != c.v4 {
				t.Errorf("IPv4 clients are sent to %q, want %q", got, c.v4)
			}
			if got := text(p.V6.Real); got != c.v6 {
				t.Errorf("IPv6 clients are sent to %q, want %q", got, c.v6)
			}
			if got := text(p.V4.Plain); got != c.plain4 {
				t.Errorf("plain clients are sent to %q, want %q", got, c.plain4)
			}
			if marks != c.marks || p.Silent != c.silent {
				t.Errorf("marks %v, silent %v; want %v, %v", marks, p.Silent, c.marks, c.silent)
			}
		})
	}
}

func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// Whatever is missing, a remote client never appears as loopback.
func TestNeverLoopback(t *testing.T) {
	flags := []bool{false, true}
	targets := []string{"127.0.0.1", "127.0.0.2", "::1", "10.0.2.100", "fd00::100", "172.17.0.2"}
	servers := [][]string{nil, {"0.0.0.0"}, {"::", "0.0.0.0"}, {"::"}, {"127.0.0.1"}, {"::1"}, {"10.0.2.100"}, {"fd00::100"}}
	clients := []netip.AddrPort{client4, client6, addrPort("172.17.0.9:1"), addrPort("[fe80::1%eth0]:1"), addrPort("169.254.1.1:1")}
	try := func(v view) {
		p, _ := choose(v)
		p.Inner = []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16")}
		for i := range 2 * len(clients) {
			client := clients[i/2]
			r := p.route(client, 80, netip.Addr{})
			if i%2 == 1 {
				r = p.route(client, 80, r.Target.Addr()) // which refused
			}
			source, target := r.Source.Addr(), r.Target.Addr()
			switch {
			case !target.IsValid(): // refused
			case !source.IsValid() && target.IsLoopback(), source.IsLoopback():
				t.Errorf("%+v: %s appears as loopback: %v", v, client, r)
			case source.IsValid() && source.Is4() != target.Is4():
				t.Errorf("%+v: families differ: %v", v, r)
			}
		}
	}
	for _, target := range targets {
		for _, listeners := range servers {
			for bits := range 1 << 8 {
				set := func(n int) bool { return flags[bits>>n&1] }
				v := fullView(set(0), target, listeners...)
				v.tracked, v.nat = set(1), set(1) && set(7)
				v.v4.rules, v.v6.rules = set(2), set(2)
				v.v4.marks, v.v6.marks = set(3), set(3)
				v.v4.carry, v.v6.carry = set(3), set(3)
				v.v4.routed, v.v6.routed = set(4), set(5)
				if set(6) {
					v.v4.own = netip.Addr{}
				}
				if set(7) {
					v.v6.own = netip.Addr{}
				}
				try(v)
			}
		}
	}
}

// TestRefusedBehindNAT: the other address is the way then, for clients beyond the host
// and on its loopback, from the same source.
func TestRefusedBehindNAT(t *testing.T) {
	v := fullView(udp, "127.0.0.1")
	v.nat, v.tracked = true, true
	p, _ := choose(v)
	for _, client := range []netip.AddrPort{client4, client6, addrPort("127.0.0.1:1")} {
		first := p.route(client, 53, netip.Addr{})
		second := p.route(client, 53, first.Target.Addr())
		if first.Target.String() != "10.0.2.100:53" || second.Target.String() != "127.0.0.1:53" || second.Source != first.Source || !first.Guess {
			t.Errorf("%s: first %+v, then %+v", client, first, second)
		}
		lost := Doubt{Client: client, Route: first, Lost: true}
		if got := p.reroute(lost, 53, first.Target.Addr()); got != second {
			t.Errorf("%s: refused, it is moved to %+v", client, got)
		}
		lost.Lost = false
		if got := p.reroute(lost, 53, netip.Addr{}); got != first {
			t.Errorf("%s: it is moved to %+v", client, got)
		}
	}
	served := fullView(udp, "127.0.0.1", "0.0.0.0")
	served.nat = true
	if p, _ := choose(served); p.route(client4, 53, tap4.Addr()).Target.Addr() != tap4.Addr() {
		t.Error("a server that is there is given up")
	}
}

// A client in doubt is moved where a server was found, but not away from one that
// answers.
func TestReroute(t *testing.T) {
	at := func(s string) Route { return Route{Source: client4, Target: addrPort(s)} }
	nobody, _ := choose(fullView(udp, "127.0.0.1"))
	all, _ := choose(fullView(udp, "127.0.0.1", "0.0.0.0"))
	lo, _ := choose(fullView(udp, "127.0.0.1", "127.0.0.1"))
	both, _ := choose(fullView(udp, "127.0.0.1", "0.0.0.0", "127.0.0.1"))
	for _, c := range []struct {
		what     string
		plan     plan
		now      string
		answered bool
		want     string
		unserved bool
	}{
		{"nobody", nobody, "10.0.2.100:53", false, "10.0.2.100:53", true},
		{"nobody any more", nobody, "10.0.2.100:53", true, "10.0.2.100:53", true},
		{"a guess was wrong", all, "127.0.0.1:53", false, "10.0.2.100:53", false},
		{"it was right", lo, "127.0.0.1:53", false, "127.0.0.1:53", false},
		{"bound elsewhere now", all, "127.0.0.1:53", true, "10.0.2.100:53", false},
		{"another server nearer", both, "10.0.2.100:53", true, "10.0.2.100:53", false},
		{"another server nearer, mute", both, "10.0.2.100:53", false, "127.0.0.1:53", false},
	} {
		got := c.plan.reroute(Doubt{Client: client4, Route: at(c.now), Answered: c.answered}, 53, netip.Addr{})
		if got.Target.String() != c.want || got.Unserved != c.unserved {
			t.Errorf("%s: %+v, want %s, %v", c.what, got, c.want, c.unserved)
		}
	}
}

func TestProblemIsOfTheFamily(t *testing.T) {
	v := fullView(udp, "127.0.0.1", "0.0.0.0", "::")
	v.v6 = family{lo: v.v6.lo, err: errors.New("no IPv6")}
	p, _ := choose(v)
	if p.V4.Problem != "" || p.V6.Problem != "no IPv6" {
		t.Errorf("problems %q, %q", p.V4.Problem, p.V6.Problem)
	}
}

func BenchmarkRoute(b *testing.B) {
	none := callerFunc(func() error { return errors.New("none") })
	p := New(b.Context(), Config{Child: none, Log: discard, IPv4: tap4.Addr()}).Port(0, addrPort("127.0.0.1:80"), Default)
	plan, _ := choose(fullView(tcp, "127.0.0.1", "0.0.0.0"))
	p.far[0].known.Store(&plan)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := p.Route(client4); !ok {
			b.Fatal("no route")
		}
	}
}
