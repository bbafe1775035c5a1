package test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// TestSecondHostAddress: a port that is published on an address of the host that is not
// its first leads to the server inside, never to what listens on that address of the
// host, at the number of the server's port.
func TestSecondHostAddress(t *testing.T) {
	for _, c := range []struct{ network, driver, families string }{
		{"gvisor-tap-vsock", "builtin", "46"},
		{"slirp4netns", "builtin", "46"},
		{"none", "builtin", "46"},
		{"gvisor-tap-vsock", "bypass4netns", "46"},
		{"slirp4netns", "bypass4netns", "46"},
		{"gvisor-tap-vsock", "gvisor-tap-vsock", "46"},
		{"slirp4netns", "slirp4netns", "4"},
		{"pasta", "pesto", "46"},
	} {
		for _, detach := range []string{"--detach-netns=false", "--detach-netns"} {
			t.Run(c.network+" "+c.driver+" "+detach, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				flags := []string{"--net=" + c.network, "--port-driver=" + c.driver, detach, "--ipv6", "--disable-host-loopback"}
				var ports []netip.AddrPort
				for family, second := range map[rune]string{'4': "198.51.100.2/24", '6': "2001:db8:51::2/64"} {
					w.shell(t, w.host, "ip addr add "+second+" dev eth0 nodad")
					if !strings.ContainsRune(c.families, family) {
						continue
					}
					port := netip.AddrPortFrom(netip.MustParsePrefix(second).Addr(), 18001)
					flags = append(flags, fmt.Sprintf("--publish=%s:18002/tcp", port), fmt.Sprintf("--publish=%s:18002/udp", port))
					ports = append(ports, port)
				}
				servers := []string{"tcp/::/18002", "udp/::/18002"}
				runServer(t, w.command(w.host, append([]string{"env", "SAY=the host", "python3", "-I", testdata(t, "peers.py")}, servers...)...).Args)
				poll(t, "the host's server", func() bool { return w.shell(t, w.host, "ss -Hltn sport = :18002") != "" })
				if got := w.ask(t, "tcp", endpoint(neighbour4, clientPort), endpoint(host4, 18002)); got != "the host" {
					t.Fatalf("the host's own server says %q", got)
				}
				inside := append([]string{"env", "SAY=inside", "python3", "-I", testdata(t, "peers.py")}, servers...)
				w.run(t, 1, append(append(flags, insideOf(detach)...), inside...)...)
				for _, to := range ports {
					for _, proto := range []string{"tcp", "udp"} {
						w.secondAddress(t, proto, to)
					}
				}
			})
		}
	}
}

// secondAddress asks at a port from the LAN, and on the host itself.
func (w *world) secondAddress(t *testing.T, proto string, to netip.AddrPort) {
	t.Helper()
	clients := []string{neighbour4, distant4}
	if to.Addr().Is6() {
		clients = []string{neighbour6, distant6}
	}
	for _, from := range clients {
		if got := w.ask(t, proto, endpoint(from, clientPort), to); got != "inside" {
			t.Errorf("%s client %s of %s got %q", proto, from, to, got)
		}
	}
	ask := fmt.Sprintf("python3 -I %s ask %s %s %s %d", testdata(t, "peers.py"), proto, to.Addr(), to.Addr(), to.Port())
	if got := w.shell(t, w.host, ask); got != "inside\n" {
		t.Errorf("%s client on the host of %s got %q", proto, to, got)
	}
}
