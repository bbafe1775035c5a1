package test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"rootlesskit/internal/relay"
)

// nodePorts are NAT's alone: nobody listens, and 127.0.0.1 is not among the addresses
// that the rules know, as with kube-proxy.
const nodePorts = `
table ip nodeports {
	chain output {
		type nat hook output priority -90
		meta l4proto {tcp, udp} th dport 21001-21009 fib daddr type local ip daddr != 127.0.0.0/8 dnat to 172.17.0.2:80
	}
	chain prerouting {
		type nat hook prerouting priority -90
		meta l4proto {tcp, udp} th dport 21001-21009 fib daddr type local ip daddr != 127.0.0.0/8 dnat to 172.17.0.2:80
	}
}
table ip6 nodeports {
	chain output {
		type nat hook output priority -90
		meta l4proto {tcp, udp} th dport 21001-21009 fib daddr type local ip6 daddr != ::1 dnat to [fd17::2]:80
	}
	chain prerouting {
		type nat hook prerouting priority -90
		meta l4proto {tcp, udp} th dport 21001-21009 fib daddr type local ip6 daddr != ::1 dnat to [fd17::2]:80
	}
}
`

// TestNodePort: a port behind which there is nothing but a NAT rule for the
// namespace's own address leads there, also behind the kubelet's firewall. Who is not on
// the host is seen as who it is.
func TestNodePort(t *testing.T) {
	for _, c := range []struct {
		flags    string
		ports    string // that are published, each for TCP and UDP
		firewall bool
	}{
		{"--net=gvisor-tap-vsock --port-driver=builtin", "0.0.0.0:21001:21001 198.51.100.1:21002:21002 [::]:21006:21006", false},
		{"--net=gvisor-tap-vsock --port-driver=builtin --detach-netns", "0.0.0.0:21001:21001 [::]:21006:21006", true},
		{"--net=gvisor-tap-vsock --port-driver=bypass4netns", "0.0.0.0:21001:21001", true},
		{"--net=gvisor-tap-vsock --port-driver=gvisor-tap-vsock", "0.0.0.0:21001:21001", false},
		{"--net=slirp4netns --port-driver=builtin", "0.0.0.0:21001:21001 198.51.100.1:21002:21002 [::]:21006:21006", true},
		{"--net=slirp4netns --port-driver=slirp4netns", "0.0.0.0:21001:21001", false},
	} {
		t.Run(c.flags, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			flags := append(strings.Fields(c.flags), "--ipv6", "--disable-host-loopback")
			for port := range strings.FieldsSeq(c.ports) {
				flags = append(flags, "--publish="+port+"/tcp", "--publish="+port+"/udp")
			}
			k := w.start(t, flags...)
			rules := nodePorts
			if c.firewall {
				rules += firewallsInside["nobody but loopback gets to loopback"]
			}
			k.inNetwork(t, rules, "nft -f -")
			for port := range strings.FieldsSeq(c.ports) {
				number := netip.MustParseAddrPort(port[:strings.LastIndex(port, ":")]).Port()
				for _, proto := range []string{"udp", "tcp"} {
					w.nodePort(t, proto, number, strings.HasPrefix(port, "["))
					if !strings.HasPrefix(port, host4) {
						w.nodePortNearby(t, proto, number, strings.HasPrefix(port, "["))
					}
				}
			}
		})
	}
}

// nodePort has clients beyond the host ask at a port.
func (w *world) nodePort(t *testing.T, proto string, port uint16, v6 bool) {
	t.Helper()
	from, to := clients("4")
	if v6 {
		from, to = clients("6")
	}
	for _, client := range from {
		client = netip.AddrPortFrom(client.Addr(), clientPort+port) // the same one is another's behind NAT
		if got := w.ask(t, proto, client, netip.AddrPortFrom(to, port)); got != client.String() {
			t.Errorf("%s client %s of port %d: got %q", proto, client, port, got)
		}
	}
}

// nodePortNearby has a client on the host's loopback ask.
func (w *world) nodePortNearby(t *testing.T, proto string, port uint16, v6 bool) {
	t.Helper()
	lo := "127.0.0.1"
	if v6 {
		lo = "::1"
	}
	got := w.shell(t, w.host, fmt.Sprintf("python3 -I %s ask %s %s %s %d || true", testdata(t, "peers.py"), proto, lo, lo, port))
	if seen, err := netip.ParseAddrPort(strings.TrimSpace(got)); err != nil || seen.Addr().IsLoopback() {
		t.Errorf("%s client on loopback of port %d: got %q", proto, port, got)
	}
}

// TestNodePortOfAddressAskedFor: with a child address that is the first way, and the
// namespace's own the second.
func TestNodePortOfAddressAskedFor(t *testing.T) {
	w := newWorld(t)
	k := w.start(t, "--net=gvisor-tap-vsock", "--port-driver=builtin", "--ipv6", "--disable-host-loopback",
		"--publish=0.0.0.0:21001:127.0.0.1:21001/tcp", "--publish=0.0.0.0:21001:127.0.0.1:21001/udp",
		"--publish=0.0.0.0:8080:127.0.0.1:8080/tcp", "--publish=0.0.0.0:8080:127.0.0.1:8080/udp",
		"--publish=127.0.0.1:21002:21002/tcp")
	k.inNetwork(t, nodePorts, "nft -f -")
	w.nodePortNearby(t, "tcp", 21002, false)
	for _, proto := range []string{"tcp", "udp"} {
		w.nodePort(t, proto, 21001, false)
		w.nodePortNearby(t, proto, 21001, false)
		w.nodePort(t, proto, 8080, false) // which the rules know at 127.0.0.1 as well
	}
}

// TestPortNobodyServes: with NAT inside that does not know a port, its clients are
// refused, and leave nothing behind.
func TestPortNobodyServes(t *testing.T) {
	w := newWorld(t)
	k := w.start(t, "--net=gvisor-tap-vsock", "--port-driver=builtin", "--ipv6", "--disable-host-loopback",
		"--publish=0.0.0.0:22001:22001/tcp")
	k.inNetwork(t, nodePorts, "nft -f -")
	idle := k.descriptors(t)
	for range 2 * relay.PoolSize {
		got := w.ask(t, "tcp", netip.MustParseAddrPort(neighbour4+":0"), endpoint(host4, 22001))
		if !strings.Contains(got, "reset") && got != "EOF" {
			t.Errorf("got %q", got)
		}
	}
	k.awaitIdle(t, idle)
	if strings.Contains(k.output.String(), "are not answered") {
		t.Errorf("a refusal is taken for silence: %s", k.output)
	}
}
