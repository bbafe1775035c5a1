package test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// servers are those of testdata/inside.sh, by their port, which is published
// under the same number.
var servers = []struct {
	what     string
	port     uint16
	protos   string
	families string
}{
	{"on all IPv4 addresses", 1001, "tcp udp", "4"},
	{"on all addresses", 1002, "tcp udp", "4 6"},
	{"on loopback alone", 1003, "tcp udp", "4 6"},
	{"on one address alone", 1004, "tcp udp", "4 6"},
	{"with a socket for each IPv4 client", 1005, "udp", "4"},
	{"with a socket for each client", 1006, "udp", "4 6"},
	{"in a container", 8080, "tcp udp", "4 6"},
	{"behind a proxy inside", 1008, "tcp udp", "4"},
}

// publishServers are the flags that publish all of them.
func publishServers() (flags []string) {
	for _, s := range servers {
		for proto := range strings.FieldsSeq(s.protos) {
			flags = append(flags,
				fmt.Sprintf("--publish=0.0.0.0:%d:%d/%s4", s.port, s.port, proto),
				fmt.Sprintf("--publish=[::]:%d:[::1]:%d/%s6", s.port, s.port, proto))
		}
	}
	return flags
}

// eachServer calls check for every server, protocol and family.
func eachServer(check func(what, proto, family string, port uint16)) {
	for _, s := range servers {
		for proto := range strings.FieldsSeq(s.protos) {
			for family := range strings.FieldsSeq(s.families) {
				check(fmt.Sprintf("%s%s server %s", proto, family, s.what), proto, family, s.port)
			}
		}
	}
}

// clients returns those of a family and the host's address: all have one port.
func clients(family string) (from []netip.AddrPort, to netip.Addr) {
	addrs := []string{neighbour4, distant4, host4}
	if family == "6" {
		addrs = []string{neighbour6, distant6, host6}
	}
	for _, a := range addrs[:2] {
		from = append(from, netip.AddrPortFrom(netip.MustParseAddr(a), clientPort))
	}
	return from, netip.MustParseAddr(addrs[2])
}

// TestServersSeeTheirClients has clients beyond the host on every server, all
// from the same port.
func TestServersSeeTheirClients(t *testing.T) {
	for _, network := range []string{"gvisor-tap-vsock", "slirp4netns", "none"} {
		for _, detach := range []string{"--detach-netns=false", "--detach-netns"} {
			t.Run(network+" "+detach, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				flags := []string{"--net=" + network, detach, "--port-driver=builtin", "--ipv6", "--disable-host-loopback"}
				k := w.start(t, append(flags, publishServers()...)...)
				eachServer(func(what, proto, family string, port uint16) {
					from, to := clients(family)
					for _, client := range from {
						got, want := w.ask(t, proto, client, netip.AddrPortFrom(to, port)), client.String()
						if port == 1008 { // the proxy sees the client, the container the proxy
							got, want = strings.TrimRight(got, "0123456789"), "172.17.0.1:"
						}
						if got != want {
							t.Errorf("the %s sees %q, want %q", what, got, want)
						}
					}
				})
				w.checkLoopbackClients(t)
				if info := k.mustCtl(t, "info", "--json"); !strings.Contains(info, `"sourceIPTransparentBackend": "nft"`) {
					t.Errorf("info: %s", info)
				}
			})
		}
	}
}

// checkLoopbackClients has clients on the host's own loopback.
func (w *world) checkLoopbackClients(t *testing.T) {
	t.Helper()
	for _, c := range []struct{ kind, from, to, want string }{
		{"tcp", "127.0.0.1", "127.0.0.1", "127.0.0."},
		{"tcp", "127.0.0.2", "127.0.0.1", "127.0.0."},
		{"tcp", "127.0.0.1", "127.0.0.2", "127.0.0."},
		{"udp", "127.0.0.2", "127.0.0.1", "127.0.0."},
		{"tcp", "::1", "::1", "[::1]:"},
		{"udp", "::1", "::1", "[::1]:"},
	} {
		for _, port := range []int{1002, 1003} {
			got := w.shell(t, w.host, fmt.Sprintf("python3 %s ask %s %s %s %d", testdata(t, "peers.py"), c.kind, c.from, c.to, port))
			if !strings.HasPrefix(got, c.want) {
				t.Errorf("%s from %s to %s:%d: the server sees %q, want %s", c.kind, c.from, c.to, port, got, c.want)
			}
		}
	}
}

// TestEmbeddedPortsShowClients is the same with the port driver of the embedded
// network, whose connections come by the interface.
func TestEmbeddedPortsShowClients(t *testing.T) {
	for _, detach := range []string{"--detach-netns=false", "--detach-netns"} {
		w := newWorld(t)
		flags := []string{"--net=gvisor-tap-vsock", detach, "--port-driver=gvisor-tap-vsock", "--ipv6", "--disable-host-loopback"}
		var ports []netip.AddrPort
		from, to := clients("4")
		for _, port := range []uint16{1001, 1002, 1005, 8080} {
			ports = append(ports, netip.AddrPortFrom(to, port))
			for _, proto := range []string{"tcp", "udp"} {
				flags = append(flags, fmt.Sprintf("--publish=0.0.0.0:%d:%d/%s4", port, port, proto))
			}
		}
		w.start(t, flags...)
		for _, port := range ports {
			for _, client := range from {
				for _, proto := range []string{"tcp", "udp"} {
					if proto == "tcp" && port.Port() == 1005 {
						continue // no server
					}
					if got := w.ask(t, proto, client, port); got != client.String() {
						t.Errorf("%s: the %s server on port %d sees %q, want %q", detach, proto, port.Port(), got, client)
					}
				}
			}
		}
	}
}

// TestOtherBackends: without nf_tables, and without any way, traffic flows, and
// a client from afar is not taken for loopback.
func TestOtherBackends(t *testing.T) {
	for _, tt := range []struct{ flag, backend, protocols string }{
		{"--source-ip-transparent-backend=iptables", "iptables", `"sourceIPTransparentProtocols": "tcp,udp"`},
		{"--source-ip-transparent=false", "none", `"none"`},
	} {
		w := newWorld(t)
		flags := []string{"--net=gvisor-tap-vsock", tt.flag, "--port-driver=builtin", "--ipv6", "--disable-host-loopback"}
		k := w.start(t, append(flags, publishServers()...)...)
		eachServer(func(what, proto, family string, port uint16) {
			if port == 1003 && tt.backend == "none" || port == 1008 {
				return // only loopback gets there; seen by the proxy alone
			}
			from, to := clients(family)
			for _, client := range from {
				got := w.ask(t, proto, client, netip.AddrPortFrom(to, port))
				seen, err := netip.ParseAddrPort(got)
				switch {
				case err != nil || seen.Addr().IsLoopback():
					t.Errorf("%s: the %s sees %q", tt.flag, what, got)
				case tt.backend != "none" && seen != client:
					t.Errorf("%s: the %s sees %q, want %q", tt.flag, what, got, client)
				}
			}
		})
		info := k.mustCtl(t, "info", "--json")
		if !strings.Contains(info, `"sourceIPTransparentBackend": "`+tt.backend+`"`) || !strings.Contains(info, tt.protocols) {
			t.Errorf("%s: info: %s", tt.flag, info)
		}
	}
}

// TestFlushedRules: a firewall inside that drops all rules does not end it.
func TestFlushedRules(t *testing.T) {
	w := newWorld(t)
	k := w.start(t, append([]string{"--net=gvisor-tap-vsock", "--port-driver=builtin", "--ipv6", "--disable-host-loopback"}, publishServers()...)...)
	_, to := clients("4")
	next := uint16(clientPort)
	seen := func(proto string) bool {
		next++ // a connection of before is not what is asked for
		client := netip.AddrPortFrom(netip.MustParseAddr(distant4), next)
		return w.ask(t, proto, client, netip.AddrPortFrom(to, 1001)) == client.String()
	}
	for _, proto := range []string{"tcp", "udp"} {
		if !seen(proto) {
			t.Errorf("%s: the client is not seen", proto)
		}
	}
	w.patience = time.Second
	k.inside(t, "", "nft flush ruleset; ip rule list >/dev/null")
	for _, proto := range []string{"tcp", "udp"} {
		poll(t, proto+": the client is seen again", func() bool { return seen(proto) })
	}
}

// TestHelpersAndClients holds what README.md says of the drivers that helper
// programs serve: a server sees the client's address.
func TestHelpersAndClients(t *testing.T) {
	for _, drivers := range [][2]string{{"slirp4netns", "slirp4netns"}, {"pasta", "pesto"}, {"pasta", "implicit"}} {
		t.Run(drivers[0]+" "+drivers[1], func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			flags := []string{"--net=" + drivers[0], "--port-driver=" + drivers[1], "--disable-host-loopback"}
			if drivers[1] != "implicit" {
				flags = append(flags, "--publish=0.0.0.0:21001:21001/tcp", "--publish=0.0.0.0:21001:21001/udp")
			}
			w.run(t, 1, append(flags, "python3", testdata(t, "peers.py"), "tcp/0.0.0.0/21001", "udp/0.0.0.0/21001")...)
			from, to := clients("4")
			for _, client := range from {
				for _, proto := range []string{"tcp", "udp"} {
					got := ""
					poll(t, proto+" port", func() bool { // pasta looks for listeners once a second
						got = w.ask(t, proto, client, netip.AddrPortFrom(to, 21001))
						return !strings.HasSuffix(got, "connection refused")
					})
					if got != client.String() {
						t.Errorf("%s client %s: the server sees %q", proto, client, got)
					}
				}
			}
		})
	}
}
