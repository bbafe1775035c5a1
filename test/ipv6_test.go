package test

import (
	"net/netip"
	"strings"
	"testing"
)

// TestIPv6WithoutNetwork: a port leads to an IPv6 server in a namespace whose network
// has no IPv6. The server sees an IPv6 client that is not the namespace itself, and no
// IPv4 server gets what is for it.
func TestIPv6WithoutNetwork(t *testing.T) {
	for _, flags := range []string{
		"--net=gvisor-tap-vsock", "--net=slirp4netns", "--net=none",
		"--net=gvisor-tap-vsock --detach-netns", "--net=gvisor-tap-vsock --port-driver=bypass4netns",
		"--net=gvisor-tap-vsock --source-ip-transparent=false",
	} {
		t.Run(flags, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			args := strings.Fields(flags + " --port-driver=builtin")
			if strings.Contains(flags, "--port-driver") {
				args = strings.Fields(flags)
			}
			for _, port := range []string{"8001", "8002", "8003", "8004", "8005"} {
				for _, proto := range []string{"tcp6", "udp6"} {
					args = append(args, "--publish=[::]:"+port+":[::1]:"+port+"/"+proto)
				}
			}
			var command []string
			if strings.Contains(flags, "--detach-netns") {
				command = []string{"sh", "-c", `exec nsenter --net=$ROOTLESSKIT_STATE_DIR/netns "$0" "$@"`}
			}
			command = append(command, "python3", "-B", testdata(t, "peers.py"),
				"tcp6/::/8001", "udp6/::/8001",
				"tcp6/::/8002", "udp6/::/8002", "tcp/0.0.0.0/8002", "udp/0.0.0.0/8002",
				"tcp6/::1/8003", "udp6/::1/8003", "tcp/::/8004", "udp/::/8004",
				"tcp/0.0.0.0/8005") // which is not what the port leads to
			w.run(t, 1, append(args, command...)...)
			if got := w.ask(t, "tcp", netip.MustParseAddrPort("[2001:db8:51::7]:40001"), netip.MustParseAddrPort("[2001:db8:51::1]:8005")); !strings.Contains(got, "reset by peer") {
				t.Errorf("the IPv4 server answers an IPv6 client: %q", got)
			}
			from, to := clients("6")
			for _, client := range from {
				for _, proto := range []string{"tcp", "udp"} {
					for _, port := range []uint16{8001, 8002, 8003, 8004} {
						got := w.ask(t, proto, client, netip.AddrPortFrom(to, port))
						if !strings.HasPrefix(got, "[") || strings.HasPrefix(got, "[::1]") {
							t.Errorf("the %s server at %d sees %q of %s", proto, port, got, client)
						}
					}
				}
			}
		})
	}
}
