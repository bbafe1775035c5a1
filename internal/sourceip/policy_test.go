package sourceip

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/netns"
)

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// programmed tells what was changed in the namespace.
func (w *world) programmed(t *testing.T) (rules, marks bool) {
	t.Helper()
	return strings.Contains(w.run(t, "ip rule"), "29291"), strings.Contains(w.run(t, "nft list tables"), "rootlesskit")
}

func TestLoopbackClientsChangeNothing(t *testing.T) {
	w := newWorld(t, own)
	w.serve(t, "tcp", "127.0.0.1:80")
	p := w.port(t, "tcp", "127.0.0.1:80")
	for _, client := range []string{"127.0.0.1:4444", "127.0.0.5:4444", "[::1]:4444", "[::ffff:127.0.0.1]:4444"} {
		r, ok := p.Route(addrPort(client))
		if !ok || r.Source.IsValid() || r.Target != addrPort("127.0.0.1:80") {
			t.Errorf("%s: %v, %v", client, r, ok)
		}
	}
	if rules, marks := w.programmed(t); rules || marks {
		t.Errorf("the namespace was changed: rules %v, marks %v", rules, marks)
	}
}

// Conntrack costs, so what does without has to do without.
func TestMarksAreMadeWhenNeeded(t *testing.T) {
	w := newWorld(t, own)
	w.serve(t, "tcp", "0.0.0.0:80")
	w.serve(t, "udp", "127.0.0.1:53")
	w.serve(t, "udp", "0.0.0.0:123")
	policy := w.policy(t, "auto")
	if policy.Backend() != "nft" {
		t.Errorf("backend %q before the first client, want nft", policy.Backend())
	}
	if rules, _ := w.programmed(t); rules {
		t.Error("rules were made before the first client")
	}
	for _, c := range []struct {
		proto, target string
		marks         bool
	}{
		{"tcp", "127.0.0.1:80", false},
		{"udp", "127.0.0.1:53", false},
		{"udp", "127.0.0.1:123", true},
	} {
		w.expectReal(t, c.proto, policy.Port(protoNumber(c.proto), addrPort(c.target), Default), client4)
		if rules, marks := w.programmed(t); !rules || marks != c.marks {
			t.Errorf("%s %s: rules %v, marks %v, want true, %v", c.proto, c.target, rules, marks, c.marks)
		}
	}
}

func TestWithoutPacketFilter(t *testing.T) {
	w := newWorld(t, own)
	policy := w.at(bare).policy(t, "auto")
	if policy.Backend() != "none" {
		t.Errorf("backend %q, want none", policy.Backend())
	}
	w.serve(t, "tcp", "0.0.0.0:1001")
	w.serve(t, "udp", "127.0.0.1:1002")
	w.expectReal(t, "tcp", policy.Port(unix.IPPROTO_TCP, addrPort("127.0.0.1:1001"), Default), client4)
	w.expectReal(t, "udp", policy.Port(unix.IPPROTO_UDP, addrPort("127.0.0.1:1002"), Default), client4)
	for i, c := range []struct{ proto, listen, target string }{
		{"udp", "0.0.0.0:1003", "127.0.0.1:1003"},
		{"udp", "[::]:1004", "[::1]:1004"},
		{"tcp", "10.0.2.100:1005", "127.0.0.1:1005"},
		{"tcp", "10.0.2.100:1006", "10.0.2.100:1006"},
	} {
		w.serve(t, c.proto, c.listen)
		client := clientFor(client4, i)
		if strings.HasPrefix(c.target, "[") {
			client = clientFor(client6, i)
		}
		p := policy.Port(protoNumber(c.proto), addrPort(c.target), Default)
		got := addrPort(w.seen(t, c.proto, p.Resolve(t.Context(), client)))
		if got.Addr() != tap4.Addr() && got.Addr() != tap6.Addr() {
			t.Errorf("%v: the server sees %s, want the namespace's own address", c, got)
		}
	}
	if n := strings.Count(w.said(), "level=WARN"); n != 1 { // the same of the probe and all plans
		t.Errorf("%d warnings, want 1:\n%s", n, w.log)
	}
	if policy.Backend() != "none" {
		t.Errorf("backend %q, want none", policy.Backend())
	}
}

// --source-ip-transparent=false
func TestSwitchedOff(t *testing.T) {
	w := newWorld(t, own)
	policy := w.policy(t, "")
	for i, listen := range []string{"0.0.0.0:1001", "127.0.0.1:1002", "10.0.2.100:1003"} {
		for _, proto := range protos {
			w.serve(t, proto, listen)
			p := policy.Port(protoNumber(proto), netip.AddrPortFrom(loopback4.Addr(), uint16(1001+i)), Default)
			if got := w.seen(t, proto, p.Resolve(t.Context(), client4)); !strings.HasPrefix(got, "10.0.2.100:") {
				t.Errorf("%s %s: the server sees %s, want 10.0.2.100", proto, listen, got)
			}
		}
	}
	if rules, marks := w.programmed(t); rules || marks || policy.Backend() != "none" {
		t.Errorf("rules %v, marks %v, backend %s", rules, marks, policy.Backend())
	}
}

// --net=none: there is no route to any client.
func TestWithoutNetwork(t *testing.T) {
	w := bareWorld(t)
	w.serve(t, "tcp", "0.0.0.0:1001")
	w.serve(t, "tcp", "[::]:1002")
	w.serve(t, "udp", "127.0.0.1:1001")
	w.serve(t, "udp", "0.0.0.0:1003")
	w.expectReal(t, "tcp", w.port(t, "tcp", "127.0.0.1:1001"), client4)
	w.expectReal(t, "tcp", w.port(t, "tcp", "[::1]:1002"), client6)
	w.expectReal(t, "udp", w.port(t, "udp", "127.0.0.1:1001"), client4)
	p := w.port(t, "udp", "127.0.0.1:1003")
	if got := w.seen(t, "udp", p.Resolve(t.Context(), client4)); !strings.HasPrefix(got, "192.0.0.8:") {
		t.Errorf("the server sees %s, want 192.0.0.8", got)
	}
	if !strings.Contains(w.log.String(), "no default route") {
		t.Errorf("nothing was said:\n%s", w.log)
	}
}

// A network with IPv4 alone.
func TestWithoutIPv6(t *testing.T) {
	w := bareWorld(t)
	w.addTAP(t, netns.LinkRequest{
		Addrs: []netip.Prefix{tap4}, Gateways: []netip.Addr{netip.MustParseAddr("10.0.2.2")},
	})
	w.serve(t, "tcp", "[::]:1001")
	w.serve(t, "udp", "[::]:1002")
	w.expectReal(t, "tcp", w.port(t, "tcp", "127.0.0.1:1001"), client6)
	w.expectReal(t, "udp", w.port(t, "udp", "127.0.0.1:1002"), client4)
	p := w.port(t, "udp", "127.0.0.1:1002")
	if got := w.seen(t, "udp", p.Resolve(t.Context(), client6)); !strings.HasPrefix(got, "10.0.2.100:") {
		t.Errorf("the server sees %s, want 10.0.2.100", got)
	}
}

// A kernel or namespace in which IPv6 is switched off is not a fault for IPv4.
func TestDisabledIPv6(t *testing.T) {
	w := bareWorld(t)
	w.run(t, "for f in all default lo; do echo 1 > /proc/sys/net/ipv6/conf/$f/disable_ipv6; done")
	w.addTAP(t, netns.LinkRequest{
		Addrs: []netip.Prefix{tap4}, Gateways: []netip.Addr{netip.MustParseAddr("10.0.2.2")},
	})
	for _, proto := range protos {
		w.serve(t, proto, "0.0.0.0:1001")
		w.expectReal(t, proto, w.port(t, proto, "127.0.0.1:1001"), client4)
	}
	if said := w.said(); said != "" {
		t.Errorf("logged:\n%s", said)
	}
}

// The address of a client's link means nothing inside.
func TestLinkLocalClient(t *testing.T) {
	w := newWorld(t, own)
	w.serve(t, "tcp", "[::]:1001")
	p := w.port(t, "tcp", "[::1]:1001")
	r := p.Resolve(t.Context(), addrPort("[fe80::1%eth0]:5555"))
	if got := w.seen(t, "tcp", r); !strings.HasPrefix(got, "[fd00::100]:") {
		t.Errorf("the server sees %s, want fd00::100", got)
	}
}

// A client may use one source port towards two published ports, as different
// clients of different ports may have the same.
func TestSameSourceTwice(t *testing.T) {
	w := newWorld(t, own)
	for _, proto := range protos {
		for _, target := range []string{"127.0.0.1:1001", "127.0.0.1:1002"} {
			w.serve(t, proto, strings.Replace(target, "127.0.0.1", "0.0.0.0", 1))
			w.expectReal(t, proto, w.port(t, proto, target), client4) // stays open
		}
	}
}

// Where the port is taken, the address remains.
func TestTakenSourcePort(t *testing.T) {
	w := newWorld(t, own)
	for _, proto := range protos {
		w.serve(t, proto, "0.0.0.0:1001")
		p := w.port(t, proto, "127.0.0.1:1001")
		for _, client := range []netip.AddrPort{
			netip.AddrPortFrom(client4.Addr(), 1001), // as the server, which takes all of this port
			client4, client4,                         // twice, over two published ports that lead to one
		} {
			r := p.Resolve(t.Context(), client)
			if proto == "udp" && client == client4 {
				continue // the kernel lets several have the same
			}
			c, err := w.dial(t, proto, r)
			if errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EADDRNOTAVAIL) {
				r.Source = netip.AddrPortFrom(r.Source.Addr(), 0)
				c, err = w.dial(t, proto, r)
			}
			if err != nil {
				t.Fatalf("%s %v: %v", proto, r, err)
			}
			if got, err := ask(c); !strings.HasPrefix(got, "203.0.113.7:") {
				t.Errorf("%s: the server sees %q, %v", proto, got, err)
			}
		}
	}
}

// A server that starts late is found.
func TestServerStartsLate(t *testing.T) {
	w := newWorld(t, own)
	p := w.port(t, "udp", "127.0.0.1:1001")
	if r := p.Resolve(t.Context(), client4); r.Target != addrPort("127.0.0.1:1001") {
		t.Errorf("route %v without a server", r)
	}
	w.serve(t, "udp", "0.0.0.0:1001")
	eventually(t, "the server is found", func() bool {
		return p.Resolve(t.Context(), client4).Target == addrPort("10.0.2.100:1001")
	})
}

// A child that cannot answer leaves clients without their address, but never
// with loopback.
func TestChildDoesNotAnswer(t *testing.T) {
	dead := callerFunc(func() error { return errors.New("the child has ended") })
	for _, c := range []struct {
		target         string
		own4, own6     netip.Addr
		source, routed string
	}{
		{"127.0.0.1:80", tap4.Addr(), netip.Addr{}, "10.0.2.100:0", "127.0.0.1:80"},
		{"[::1]:80", tap4.Addr(), tap6.Addr(), "[fd00::100]:0", "[::1]:80"},
		{"10.0.2.100:80", tap4.Addr(), netip.Addr{}, "invalid AddrPort", "10.0.2.100:80"},
		{"127.0.0.1:80", netip.Addr{}, netip.Addr{}, "invalid AddrPort", "invalid AddrPort"},
	} {
		p := New(t.Context(), Config{Child: dead, Backend: "auto", IPv4: c.own4, IPv6: c.own6, Log: discard})
		r := p.Port(unix.IPPROTO_TCP, addrPort(c.target), Default).Resolve(t.Context(), client4)
		if r.Source.String() != c.source || r.Target.String() != c.routed {
			t.Errorf("%s: %v, want %s, %s", c.target, r, c.source, c.routed)
		}
		if p.Backend() != "none" {
			t.Errorf("backend %q", p.Backend())
		}
	}
}

func TestResolveEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	stuck := callerFunc(func() error { <-ctx.Done(); return ctx.Err() })
	p := (&Policy{cfg: Config{Child: stuck, Backend: "auto", IPv4: tap4.Addr(), Log: discard}}).Port(unix.IPPROTO_TCP, addrPort("127.0.0.1:80"), Default)
	done := make(chan Route, 2)
	for range 2 {
		go func() { done <- p.Resolve(ctx, client4) }()
	}
	cancel()
	for range 2 {
		if r := <-done; r.Source != addrPort("10.0.2.100:0") {
			t.Errorf("route %v", r)
		}
	}
}
