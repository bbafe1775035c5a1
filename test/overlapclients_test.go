package test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"rootlesskit/internal/nstest"
)

// overlapping are clients with addresses that are somebody else's inside: the
// namespace's own, its gateway's, a neighbour's on its network, a container's.
var overlapping = map[string][]string{
	"4": {"10.0.2.7", "10.0.2.100", "10.0.2.2", "10.0.2.1", "10.0.2.3", "172.17.0.9", "172.17.0.1"},
	"6": {"fd00::7", "fd00::100", "fd00::2", "fdc8:5a1d:66e7::7", "fdc8:5a1d:66e7::100", "fdc8:5a1d:66e7::1", "fd17::9", "fd17::1"},
}

const withBridge = `PATH=$PATH:/usr/sbin
ip link add docker0 type bridge
ip addr add 172.17.0.1/16 dev docker0
ip addr add fd17::1/64 dev docker0 nodad
ip link set docker0 up
exec python3 "$0" tcp/0.0.0.0/21001 udp/0.0.0.0/21001 tcp/::/21002 udp/::/21002`

// TestClientsWithAddressesUsedInside: such clients are served, and not taken for
// loopback. What the helpers' drivers cannot serve is said in docs/ports.md.
func TestClientsWithAddressesUsedInside(t *testing.T) {
	for _, c := range []struct {
		network, driver, families string
		not                       func(proto, ip string) bool
	}{
		{"gvisor-tap-vsock", "builtin", "46", nil},
		{"slirp4netns", "builtin", "46", nil},
		{"none", "builtin", "46", nil},
		{"gvisor-tap-vsock", "bypass4netns", "46", nil},
		{"slirp4netns", "bypass4netns", "46", nil},
		{"gvisor-tap-vsock", "gvisor-tap-vsock", "46", nil},
		{"slirp4netns", "slirp4netns", "4", func(proto, ip string) bool { return proto == "tcp" && ip != "10.0.2.2" }},
		{"pasta", "pesto", "4", func(_, ip string) bool { return strings.HasPrefix(ip, "172.") }},
	} {
		t.Run(c.network+" "+c.driver, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.addOverlapping(t)
			flags := []string{"--net=" + c.network, "--port-driver=" + c.driver, "--ipv6", "--disable-host-loopback"}
			for _, family := range strings.Split(c.families, "") {
				parent := map[string]string{"4": "0.0.0.0:21001:21001", "6": "[::]:21002:21002"}[family]
				flags = append(flags, "--publish="+parent+"/tcp"+family, "--publish="+parent+"/udp"+family)
			}
			w.run(t, 1, slices.Concat(flags, []string{"sh", "-ec", withBridge, testdata(t, "peers.py")})...)
			for _, family := range strings.Split(c.families, "") {
				to := map[string]netip.AddrPort{"4": endpoint(host4, 21001), "6": endpoint(host6, 21002)}[family]
				for i, ip := range overlapping[family] {
					for _, proto := range []string{"tcp", "udp"} {
						if c.not != nil && c.not(proto, ip) {
							continue
						}
						got := w.ask(t, proto, endpoint(ip, uint16(clientPort+i)), to)
						if seen, err := netip.ParseAddrPort(got); err != nil || seen.Addr().IsLoopback() {
							t.Errorf("the %s server sees client %s as %q", proto, ip, got)
						}
					}
				}
			}
		})
	}
}

// addOverlapping gives the LAN the clients' addresses, and the host the way there.
func (w *world) addOverlapping(t *testing.T) {
	t.Helper()
	for family, clients := range overlapping {
		gateway, bits := map[string]string{"4": neighbour4, "6": neighbour6}[family], map[string]string{"4": "32", "6": "128"}[family]
		for _, ip := range clients {
			w.shell(t, w.outside.PID, "ip addr add "+ip+"/"+bits+" dev lo"+map[string]string{"6": " nodad"}[family])
			w.shell(t, w.host, "ip route add "+ip+"/"+bits+" via "+gateway)
		}
	}
	w.shell(t, w.outside.PID, nstest.AwaitAddresses+"await_addresses lo")
}
