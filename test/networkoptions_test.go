package test

import (
	"strings"
	"testing"
)

// TestNetworkOptions: what is asked for is what the namespace has, with every
// network that can do it.
func TestNetworkOptions(t *testing.T) {
	const script = `
cat /sys/class/net/eth7/mtu
ip -4 -o addr show dev eth7 | grep -o '10\.9\.8\.100/24'
ip -6 -o addr show dev eth7 scope global | grep -c inet6`
	for _, network := range []string{"gvisor-tap-vsock", "slirp4netns", "pasta"} {
		for flag, want := range map[string]string{"--ipv6": "1400\n10.9.8.100/24\n1\n", "--ipv6=false": "1400\n10.9.8.100/24\n0\n"} {
			r := runKit(t, "--net="+network, "--disable-host-loopback", "--copy-up=/etc", flag,
				"--mtu=1400", "--ifname=eth7", "--cidr=10.9.8.0/24", "sh", "-c", script)
			if r.stdout != want {
				t.Errorf("%s %s: got %q, want %q: %s", network, flag, r.stdout, want, strings.TrimSpace(r.stderr))
			}
		}
	}
}
