package test

import (
	"net/netip"
	"strings"
	"testing"
)

// lateRule leads a port to the container whose packets the kernel dropped before.
const lateRule = "nft add rule ip nat output meta l4proto '{tcp, udp}' th dport 1010 fib daddr type local dnat to 172.17.0.2:80"

// TestClientBeforeNATRule: a container engine opens a port first, then makes the rule
// that leads it to the container. A connection that comes between is led there too,
// though NAT has decided about its first packet.
func TestClientBeforeNATRule(t *testing.T) {
	for _, flags := range []string{
		"--net=gvisor-tap-vsock --port-driver=builtin",
		"--net=gvisor-tap-vsock --port-driver=builtin --detach-netns --source-ip-transparent=false",
		"--net=gvisor-tap-vsock --port-driver=bypass4netns --detach-netns",
		"--net=slirp4netns --port-driver=builtin --detach-netns",
	} {
		t.Run(flags, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			k := w.start(t, append(strings.Fields(flags), "--ipv6", "--disable-host-loopback", "--publish=0.0.0.0:1010:127.0.0.1:1010/tcp")...)
			client := netip.MustParseAddrPort(distant4 + ":0")
			answer := make(chan string)
			go func() { answer <- w.ask(t, "tcp", client, endpoint(host4, 1010)) }()
			poll(t, "a connection whose first packet was dropped", func() bool {
				return strings.Contains(k.inNetwork(t, "", "ss -Htn state syn-sent"), ":1010")
			})
			k.inNetwork(t, "", lateRule)
			seen, err := netip.ParseAddrPort(<-answer)
			if err != nil || seen.Addr() != client.Addr() && !strings.Contains(flags, "transparent=false") {
				t.Errorf("the server sees %s, %v; the client is %s", seen, err, client.Addr())
			}
		})
	}
}
