package sourceip

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"rootlesskit/internal/nstest"
)

// containerScript makes a bridge with a container on it, as engines do:
// published ports are translated on the way in, the container's own
// connections on the way out, and packets to the container's address come from
// the bridge alone.
const containerScript = `
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
ip link add docker0 type bridge
ip addr add 172.17.0.1/16 dev docker0
ip addr add fd17::1/64 dev docker0 nodad
ip link set docker0 up
ip link add veth0 type veth peer name eth0 netns "$INNER"
ip link set veth0 master docker0 up
nft -f - <<RULES
table ip nat {
	chain output {
		type nat hook output priority -100
		meta l4proto {tcp, udp} th dport 8080 fib daddr type local dnat to 172.17.0.2:80
	}
	chain prerouting {
		type nat hook prerouting priority -100
		meta l4proto {tcp, udp} th dport 8080 fib daddr type local dnat to 172.17.0.2:80
	}
	chain postrouting {
		type nat hook postrouting priority 100
		ip saddr 172.17.0.0/16 oifname != docker0 masquerade
		fib saddr type local oifname docker0 masquerade
	}
}
table ip6 nat {
	chain output {
		type nat hook output priority -100
		meta l4proto {tcp, udp} th dport 8080 fib daddr type local dnat to [fd17::2]:80
	}
	chain postrouting {
		type nat hook postrouting priority 100
		ip6 saddr fd17::/64 oifname != docker0 masquerade
	}
}
table ip filter {
	chain prerouting {
		type filter hook prerouting priority raw
		ip daddr 172.17.0.2 iifname != docker0 drop
	}
	chain forward {
		type filter hook forward priority filter
		policy drop
	}
}
RULES
`

const innerScript = `
ip addr add 172.17.0.2/16 dev eth0
ip addr add fd17::2/64 dev eth0 nodad
ip link set eth0 up
ip route add default via 172.17.0.1
ip -6 route add default via fd17::1
`

// newContainerWorld returns the namespace and the container in it.
func newContainerWorld(t *testing.T) (w, container *world) {
	t.Helper()
	w = newWorld(t, own)
	container = w.at(inner_)
	container.run(t, nstest.NoAddressDetection) // makes it
	w.run(t, nstest.NoAddressDetection+containerScript)
	container.run(t, innerScript)
	container.run(t, nstest.AwaitLinks+"await_links eth0")
	w.run(t, nstest.AwaitLinks+"await_links veth0 docker0")
	return w, container
}

func TestServerBehindBridgeAndDNAT(t *testing.T) {
	for _, strict := range []bool{false, true} {
		name := map[bool]string{false: "rp_filter off", true: "rp_filter strict"}[strict]
		t.Run(name, func(t *testing.T) {
			w, container := newContainerWorld(t)
			if strict {
				w.run(t, "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 > $f; done")
			}
			for i, target := range []string{
				"127.0.0.1:8080", "10.0.2.100:8080", "172.17.0.1:8080", "172.17.0.2:80",
				"[::1]:8080", "[fd00::100]:8080", "[fd17::2]:80",
			} {
				client := clientFor(client4, i)
				if strings.HasPrefix(target, "[") {
					client = clientFor(client6, i)
				}
				for _, proto := range protos {
					t.Run(proto+" "+target, func(t *testing.T) {
						listen := "0.0.0.0:80"
						if client.Addr().Is6() {
							listen = "[::]:80"
						}
						container.serve(t, proto, listen)
						w.expectReal(t, proto, w.port(t, proto, target), client)
					})
				}
			}
		})
	}
}

// The namespace's own use of its published ports is none of ours: a client on
// its loopback reaches the container through route_localnet.
func TestHairpinSurvives(t *testing.T) {
	w, container := newContainerWorld(t)
	w.run(t, "echo 1 > /proc/sys/net/ipv4/conf/docker0/route_localnet")
	for _, proto := range protos {
		container.serve(t, proto, "0.0.0.0:80")
		w.expectReal(t, proto, w.port(t, proto, "127.0.0.1:8080"), client4)
		for _, target := range []string{"127.0.0.1:8080", "10.0.2.100:8080"} {
			got := w.seen(t, proto, Route{Target: netip.MustParseAddrPort(target)})
			if !strings.HasPrefix(got, "172.17.0.1:") {
				t.Errorf("%s %s: the container sees %s, want 172.17.0.1", proto, target, got)
			}
		}
	}
}

// A client whose address is a neighbour's on the bridge would never get the
// answer, so it is not shown.
func TestClientWithAnInnerAddress(t *testing.T) {
	w, container := newContainerWorld(t)
	for _, proto := range protos {
		container.serve(t, proto, "0.0.0.0:80")
		p := w.port(t, proto, "127.0.0.1:8080")
		got := w.seen(t, proto, p.Resolve(t.Context(), netip.MustParseAddrPort("172.17.0.9:5000")))
		if strings.HasPrefix(got, "172.17.0.9") || strings.HasPrefix(got, "127.") {
			t.Errorf("%s: the container sees %s", proto, got)
		}
	}
}

// A client may have an address of the uplink's network, where other machines have
// that network as well. It is not shown as the neighbour that has it here.
func TestClientWithAnUplinkAddress(t *testing.T) {
	w := newWorld(t, own)
	for _, proto := range protos {
		for _, c := range []struct{ listen, target, client, want string }{
			{"0.0.0.0:1001", "127.0.0.1:1001", "10.0.2.2:5000", "10.0.2.100:"},
			{"127.0.0.1:1002", "127.0.0.1:1002", "10.0.2.2:5000", "10.0.2.100:"},
			{"10.0.2.100:1003", "127.0.0.1:1003", "10.0.2.77:5000", "10.0.2.100:"},
			{"10.0.2.100:1004", "10.0.2.100:1004", "10.0.2.77:5000", "10.0.2.100:"},
			{"[::]:1005", "[::1]:1005", "[fd00::77]:5000", "[fd00::100]:"},
		} {
			w.serve(t, proto, c.listen)
			r := w.port(t, proto, c.target).Resolve(t.Context(), addrPort(c.client))
			if got := w.seen(t, proto, r); !strings.HasPrefix(got, c.want) {
				t.Errorf("%s server on %s sees %s of %s, want %s", proto, c.listen, got, c.client, c.want)
			}
		}
	}
}

// NAT that comes after the first client is seen, by whatever tool it is made.
func TestNATComesLater(t *testing.T) {
	for name, make := range map[string]string{
		"nft": "nft add table ip mine; nft 'add chain ip mine nat { type nat hook output priority -100; }'; " +
			"nft add rule ip mine nat tcp dport 81 dnat to 172.17.0.2",
		"iptables-nft":    "iptables-nft -t nat -A OUTPUT -p tcp --dport 81 -j DNAT --to 172.17.0.2",
		"iptables-legacy": "iptables-legacy -t nat -A OUTPUT -p tcp --dport 81 -j DNAT --to 172.17.0.2",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, own)
			if name == "iptables-legacy" {
				w.needsLegacy(t)
			}
			w.run(t, "true", "XTABLES_LOCKFILE="+filepath.Join(t.TempDir(), "lock"))
			w.serve(t, "tcp", "127.0.0.1:80")
			p := w.port(t, "tcp", "127.0.0.1:80")
			p.Resolve(t.Context(), client4)
			if _, marks := w.programmed(t); marks {
				t.Fatal("marks were made without NAT")
			}
			w.run(t, make)
			eventually(t, "marks are made", func() bool {
				p.Resolve(t.Context(), client4)
				_, marks := w.programmed(t)
				return marks
			})
		})
	}
}
