package sourceip

import (
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rootlesskit/internal/netns"
)

// firewalls are such as hardened nodes have: what leaves is named, and lo is open.
// None accepts what belongs to established connections.
var firewalls = map[string]string{
	"nft": `nft -f - <<RULES
table inet hardened {
	chain input { type filter hook input priority filter; policy drop; iifname lo accept; }
	chain output { type filter hook output priority filter; policy drop; oifname lo accept; }
}
RULES`,
	"iptables-nft": `for i in iptables-nft ip6tables-nft; do
	$i -P OUTPUT DROP; $i -A OUTPUT -o lo -j ACCEPT; done`,
	"iptables-legacy": `for i in iptables-legacy ip6tables-legacy; do
	$i -P OUTPUT DROP; $i -A OUTPUT -o lo -j ACCEPT; done`,
}

var firewallServers = []struct {
	listen, target string
	client         netip.AddrPort
	own            string
}{
	{"0.0.0.0:1001", "127.0.0.1:1001", client4, "10.0.2.100:"},
	{"127.0.0.1:1002", "127.0.0.1:1002", client4, "10.0.2.100:"},
	{"10.0.2.100:1003", "127.0.0.1:1003", client4, "10.0.2.100:"},
	{"10.0.2.100:1004", "10.0.2.100:1004", client4, "10.0.2.100:"},
	{"[::]:1005", "[::1]:1005", client6, "[fd00::100]:"},
	{"[fd00::100]:1006", "[fd00::100]:1006", client6, "[fd00::100]:"},
}

// seenOrOwn checks that a server answers a client, and sees it or the namespace's
// own address.
func (w *world) seenOrOwn(t *testing.T, proto string, r Route, client netip.AddrPort, own string) {
	t.Helper()
	if got := w.seen(t, proto, r); got != client.String() && !strings.HasPrefix(got, own) {
		t.Errorf("%s: the server sees %q, want %s or %s", proto, got, client, own)
	}
}

// TestFirewallInside: where replies are dropped before they are led to lo, servers
// are asked from an address of the namespace's own.
func TestFirewallInside(t *testing.T) {
	for name, script := range firewalls {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, own)
			if name == "iptables-legacy" {
				w.needsLegacy(t)
			}
			w.run(t, script, "XTABLES_LOCKFILE="+filepath.Join(t.TempDir(), "lock"))
			policy := w.policy(t, "auto")
			for _, proto := range protos {
				for _, c := range firewallServers {
					w.serve(t, proto, c.listen)
					p := policy.Port(protoNumber(proto), addrPort(c.target), Default)
					w.seenOrOwn(t, proto, p.Resolve(t.Context(), c.client), c.client, c.own)
				}
			}
			if n := strings.Count(w.said(), "level=WARN"); n != 1 && n != 2 { // once, or once a family
				t.Errorf("%d warnings:\n%s", n, w.log)
			}
		})
	}
}

// TestFirewallComesLater: one that is made after the marks is found out, where a
// server answers nobody.
func TestFirewallComesLater(t *testing.T) {
	for name, script := range firewalls {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, own)
			if name == "iptables-legacy" {
				w.needsLegacy(t)
			}
			policy := w.policy(t, "auto")
			w.serve(t, "udp", "0.0.0.0:1001")
			p := policy.Port(protoNumber("udp"), addrPort("127.0.0.1:1001"), Default)
			w.expectReal(t, "udp", p, client4)
			w.run(t, script, "XTABLES_LOCKFILE="+filepath.Join(t.TempDir(), "lock"))
			doubt := Doubt{Client: client4, Route: p.Resolve(t.Context(), client4), Mute: true}
			eventually(t, "the namespace's own address is shown", func() bool {
				return p.Look(t.Context(), []Doubt{doubt})[0].Source.Addr() == tap4.Addr()
			})
			w.seenOrOwn(t, "udp", p.Look(t.Context(), []Doubt{doubt})[0], client4, "10.0.2.100:")
			if !strings.Contains(w.log.String(), "packet filter") {
				t.Errorf("nothing was said:\n%s", w.log)
			}
		})
	}
}

// A firewall that accepts what is established lets the marks work.
func TestFirewallWithEstablished(t *testing.T) {
	w := newWorld(t, own)
	w.run(t, firewalls["nft"]+"\nnft insert rule inet hardened output ct state established accept")
	for _, proto := range protos {
		for _, c := range firewallServers {
			w.serve(t, proto, c.listen)
			w.expectReal(t, proto, w.port(t, proto, c.target), c.client)
		}
	}
}

// TestPublishedAddress: a port without a child address leads to the address that it
// is published on where that is the namespace's, or NAT there knows it, and never
// out of the namespace.
func TestPublishedAddress(t *testing.T) {
	w := newWorld(t, own)
	w.run(t, "ip addr add 10.0.2.101/24 dev tap0")
	resolve := func(proto, address, client string) string {
		p := w.policy(t, "auto").Port(protoNumber(proto), addrPort(address), PublishedAt)
		return p.Resolve(t.Context(), addrPort(client)).Target.String()
	}
	for _, proto := range protos {
		for _, c := range []struct{ published, client, want string }{
			{"198.51.100.2:80", client4.String(), "127.0.0.1:80"},
			{"198.51.100.2:80", "127.0.0.1:5000", "127.0.0.1:80"},
			{"[2001:db8:5::2]:80", client6.String(), "[::1]:80"},
			{"[2001:db8:5::2]:80", "[::1]:5000", "[::1]:80"},
			{"10.0.2.101:80", client4.String(), "10.0.2.101:80"},
			{"10.0.2.101:80", "127.0.0.1:5000", "10.0.2.101:80"},
			{"127.0.4.1:80", "127.0.0.1:5000", "127.0.4.1:80"},
		} {
			if got := resolve(proto, c.published, c.client); got != c.want {
				t.Errorf("%s: %s published on %s is led to %s, want %s", proto, c.client, c.published, got, c.want)
			}
		}
	}
	w.run(t, "nft add table ip mine; nft 'add chain ip mine nat { type nat hook output priority -100; }'; "+
		"nft add chain ip mine ports; nft add rule ip mine nat jump ports; "+
		"nft add rule ip mine ports ip daddr 198.51.100.2 tcp dport 80 dnat to 10.0.2.100:81")
	if got := resolve("tcp", "198.51.100.2:80", client4.String()); got != "198.51.100.2:80" {
		t.Errorf("with NAT for it, the port leads to %s", got)
	}
	if got := resolve("tcp", "198.51.100.3:80", client4.String()); got != "10.0.2.100:80" {
		t.Errorf("with NAT for another address, the port leads to %s", got)
	}
}

// Servers on the wildcard address answer wherever a port leads: a UDP server's
// replies come from the address that routing prefers.
func TestWildcardServersAnswerAtEveryAddress(t *testing.T) {
	w := newWorld(t, own)
	w.run(t, "ip addr add 10.0.2.101/24 dev tap0; ip addr add fd00::101/64 dev tap0 nodad")
	w.awaitLocal(t, "fd00::101")
	for _, proto := range protos {
		w.serve(t, proto, "0.0.0.0:1001")
		w.serve(t, proto, "[::]:1002")
		for i, c := range []struct {
			published string
			client    netip.AddrPort
			want      string
		}{
			{"127.0.4.1:1001", addrPort("127.0.0.1:5000"), "127.0.0.1:"},
			{"127.0.4.1:1001", client4, client4.Addr().String() + ":"},
			{"198.51.100.2:1001", client4, client4.Addr().String() + ":"},
			{"10.0.2.101:1001", client4, client4.Addr().String() + ":"},
			{"10.0.2.101:1001", addrPort("127.0.0.1:5000"), "10.0.2.10"},
			{"[fd00::101]:1002", client6, "[" + client6.Addr().String() + "]:"},
			{"[2001:db8:5::2]:1002", client6, "[" + client6.Addr().String() + "]:"},
		} {
			p := w.policy(t, "auto").Port(protoNumber(proto), addrPort(c.published), PublishedAt)
			if got := w.seen(t, proto, p.Resolve(t.Context(), clientFor(c.client, i))); !strings.HasPrefix(got, c.want) {
				t.Errorf("%s: the server sees %s at %s, want %s", proto, got, c.published, c.want)
			}
		}
	}
}

// A child address without a default route: the kernel could not answer a client of
// the outside.
func TestChildAddressWithoutDefaultRoute(t *testing.T) {
	w := bareWorld(t)
	w.addTAP(t, netns.LinkRequest{Addrs: []netip.Prefix{tap4, tap6}})
	for _, proto := range protos {
		for _, c := range firewallServers {
			w.serve(t, proto, c.listen)
			r := w.port(t, proto, c.target).Resolve(t.Context(), c.client)
			w.seenOrOwn(t, proto, r, c.client, c.own)
		}
	}
	if !strings.Contains(w.log.String(), "no default route") {
		t.Errorf("nothing was said:\n%s", w.log)
	}
}

// kubeFirewall is what the kubelet makes: nobody but loopback gets to loopback.
const kubeFirewall = `nft -f - <<RULES
table ip kube {
	chain input { type filter hook input priority filter; ip saddr != 127.0.0.0/8 ip daddr 127.0.0.0/8 drop; }
}
table ip6 kube {
	chain input { type filter hook input priority filter; ip6 saddr != ::1 ip6 daddr ::1 drop; }
}
RULES`

// TestConnectionsAreNotAnswered: the other address of the namespace is the way then,
// for all clients, and it is said once.
func TestConnectionsAreNotAnswered(t *testing.T) {
	w := newWorld(t, own)
	w.run(t, kubeFirewall)
	policy := w.policy(t, "auto")
	for _, c := range []struct {
		listen, target string
		client         netip.AddrPort
	}{
		{"0.0.0.0:1001", "127.0.0.1:1001", client4},
		{"[::]:1002", "[::1]:1002", client6},
	} {
		w.serve(t, "tcp", c.listen)
		p := policy.Port(protoNumber("tcp"), addrPort(c.target), Default)
		first := p.Resolve(t.Context(), c.client)
		p.Answered(addrPort("127.0.0.1:4000"), first.Target) // for whom there is no firewall
		if !first.Target.Addr().IsLoopback() {               // marks that are there make the other one the first
			w.expectReal(t, "tcp", p, c.client)
			continue
		}
		for range 3 { // clients that came at once
			if !p.Unanswered(c.client, first.Target) {
				t.Errorf("%s: there is no other way", c.listen)
			}
		}
		w.expectReal(t, "tcp", p, c.client)
		way := p.Resolve(t.Context(), c.client)
		p.Answered(c.client, way.Target)
		p.lastAnswer(way.Target).Add(int64(time.Hour)) // it stays recent, however slow this is
		if p.Unanswered(c.client, way.Target) || p.Resolve(t.Context(), c.client) != way {
			t.Errorf("%s: a server that is busy is given up", c.listen)
		}
		p.answered = [2]atomic.Int64{}
		if second := p.Resolve(t.Context(), c.client); p.Unanswered(c.client, second.Target) {
			t.Errorf("%s: a third way was found", c.listen)
		}
	}
	if n := strings.Count(w.said(), "not answered"); n != 1 {
		t.Errorf("it was said %d times:\n%s", n, w.log)
	}
}
