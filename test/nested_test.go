package test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// TestNested: a launcher in a launcher in a launcher. A port that is published through
// all three leads to the server in the innermost, which sees its clients and reaches the
// LAN; the end of the outermost is the end of all.
func TestNested(t *testing.T) {
	for _, c := range []struct{ networks, drivers [3]string }{
		{[3]string{"gvisor-tap-vsock", "gvisor-tap-vsock", "gvisor-tap-vsock"}, [3]string{"builtin", "builtin", "builtin"}},
		{[3]string{"slirp4netns", "gvisor-tap-vsock", "slirp4netns"}, [3]string{"builtin", "gvisor-tap-vsock", "builtin"}},
		{[3]string{"gvisor-tap-vsock", "gvisor-tap-vsock", "slirp4netns"}, [3]string{"bypass4netns", "gvisor-tap-vsock", "builtin"}},
	} {
		t.Run(fmt.Sprint(c.networks, c.drivers), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			var args []string
			for i, network := range c.networks {
				if i > 0 {
					args = append(args, bin("rootlesskit"))
				}
				args = append(args, "--net="+network, "--port-driver="+c.drivers[i], "--disable-host-loopback", "--copy-up=/etc",
					fmt.Sprintf("--cidr=10.0.%d.0/24", 10+i))
				for _, proto := range []string{"tcp4", "udp4"} {
					args = append(args, fmt.Sprintf("--publish=0.0.0.0:%d:%d/%s", 21000+i, 21001+i, proto))
				}
			}
			server := []string{"python3", "-I", testdata(t, "peers.py"), "tcp/0.0.0.0/21003", "udp/0.0.0.0/21003"}
			w.run(t, 1, slices.Concat(args, server)...)
			for _, proto := range []string{"tcp", "udp"} {
				for _, from := range []string{neighbour4, distant4} {
					client := endpoint(from, clientPort)
					if got := w.ask(t, proto, client, endpoint(host4, 21000)); got != client.String() {
						t.Errorf("the %s server sees %q, want %s", proto, got, client)
					}
				}
			}
			for _, ip := range []string{"127.0.0.1", host4} {
				got := strings.TrimSpace(w.shell(t, w.host, "python3 -I "+testdata(t, "peers.py")+" ask tcp "+ip+" "+ip+" 21000"))
				if _, err := netip.ParseAddrPort(got); err != nil {
					t.Errorf("at %s of the host the server sees %q", ip, got)
				}
			}
		})
	}
}
