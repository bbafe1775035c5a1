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
	return view{
		udp: udp, target: netip.MustParseAddr(target), listeners: addrs(listeners...),
		v4: family{lo: loopback4.Addr(), own: tap4.Addr(), routed: true, rules: true, marks: true},
		v6: family{lo: loopback6.Addr(), own: tap6.Addr(), routed: true, rules: true, marks: true},
	}
}

const tcp, udp = false, true

func TestChoose(t *testing.T) {
	noMarks := func(v view) view { v.v4.marks, v.v6.marks = false, false; return v }
	nat := func(v view) view { v.tracked = true; return v }
	for name, c := range map[string]struct {
		view   view
		v4, v6 string // what Real is
		plain4 string // what Plain of V4 is
		marks  bool
		silent bool
	}{
		"TCP on all":                  {fullView(tcp, "127.0.0.1", "0.0.0.0", "::"), "127.0.0.1", "::1", "127.0.0.1", false, false},
		"TCP on loopback":             {fullView(tcp, "127.0.0.1", "127.0.0.1"), "127.0.0.1", "", "127.0.0.1", false, false},
		"TCP on another loopback":     {fullView(tcp, "127.0.0.2", "127.0.0.2"), "127.0.0.2", "", "127.0.0.2", false, false},
		"TCP on the address alone":    {fullView(tcp, "127.0.0.1", "10.0.2.100"), "10.0.2.100", "", "10.0.2.100", true, false},
		"TCP on all with NAT":         {nat(fullView(tcp, "127.0.0.1", "0.0.0.0")), "127.0.0.1", "", "127.0.0.1", true, false},
		"UDP on all":                  {fullView(udp, "127.0.0.1", "0.0.0.0", "::"), "10.0.2.100", "fd00::100", "10.0.2.100", true, false},
		"UDP on loopback":             {fullView(udp, "127.0.0.1", "127.0.0.1"), "127.0.0.1", "", "127.0.0.1", false, false},
		"UDP on all and loopback":     {fullView(udp, "127.0.0.1", "0.0.0.0", "127.0.0.1"), "127.0.0.1", "", "127.0.0.1", false, false},
		"UDP on all without marks":    {noMarks(fullView(udp, "127.0.0.1", "0.0.0.0")), "", "", "10.0.2.100", false, false},
		"nobody":                      {fullView(tcp, "127.0.0.1"), "127.0.0.1", "", "127.0.0.1", false, true},
		"nobody but NAT":              {nat(fullView(udp, "127.0.0.1")), "127.0.0.1", "", "127.0.0.1", true, false},
		"NAT without marks":           {noMarks(nat(fullView(udp, "127.0.0.1"))), "", "", "127.0.0.1", true, false},
		"a container's address":       {fullView(tcp, "172.17.0.2"), "172.17.0.2", "", "172.17.0.2", true, false},
		"a container's without marks": {noMarks(fullView(tcp, "172.17.0.2")), "", "", "172.17.0.2", false, false},
		"a stranger's listener":       {fullView(tcp, "127.0.0.1", "172.17.0.1"), "127.0.0.1", "", "127.0.0.1", false, true},
		"IPv6 target, IPv4 server":    {fullView(tcp, "::1", "127.0.0.1"), "127.0.0.1", "", "127.0.0.1", false, false},
	} {
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
		for _, client := range clients {
			r := p.route(client, 80)
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
				v.tracked = set(1)
				v.v4.rules, v.v6.rules = set(2), set(2)
				v.v4.marks, v.v6.marks = set(3), set(3)
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
	p := New(b.Context(), Config{Child: none, Log: discard, IPv4: tap4.Addr()}).Port(0, addrPort("127.0.0.1:80"))
	plan, _ := choose(fullView(tcp, "127.0.0.1", "0.0.0.0"))
	p.known.Store(&plan)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := p.Route(client4); !ok {
			b.Fatal("no route")
		}
	}
}
