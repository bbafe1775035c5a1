package test

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"
)

// firewallsInside are those of hardened nodes and of the kubelet.
var firewallsInside = map[string]string{
	"what leaves is dropped": `table inet hardened {
	chain output { type filter hook output priority filter; policy drop; oifname lo accept; }
}`,
	"nobody but loopback gets to loopback": `table inet kube {
	chain input {
		type filter hook input priority filter
		ip saddr != 127.0.0.0/8 ip daddr 127.0.0.0/8 drop
		ip6 saddr != ::1 ip6 daddr ::1 drop
	}
}`,
}

// TestFirewallsInside: a published port is reached all the same by clients beyond the
// host, as they or as the namespace, and never as loopback.
func TestFirewallsInside(t *testing.T) {
	for name, rules := range firewallsInside {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			flags := []string{"--net=gvisor-tap-vsock", "--port-driver=builtin", "--ipv6", "--disable-host-loopback"}
			for _, port := range []string{"0.0.0.0:21001:21001", "[::]:21002:[::1]:21002"} {
				for _, proto := range []string{"tcp", "udp"} {
					flags = append(flags, "--publish="+port+"/"+proto)
				}
			}
			k := newKit(t, append(flags, "sleep", "infinity")...)
			w.launch(t, k)
			nft := exec.CommandContext(t.Context(), "nsenter", "-U", "--preserve-credentials", "-n", "-t", k.childPID(t),
				"sh", "-c", "PATH=$PATH:/usr/sbin exec nft -f -")
			nft.Stdin = strings.NewReader(rules)
			if r := runCmd(t, nft); r.code != 0 {
				t.Fatalf("nft: %s", r.stderr)
			}
			defer startInside(t, k, "tcp/0.0.0.0/21001", "udp/0.0.0.0/21001", "tcp/::/21002", "udp/::/21002")()
			for family, port := range map[string]uint16{"4": 21001, "6": 21002} {
				from, to := clients(family)
				for _, client := range from {
					for _, proto := range []string{"udp", "tcp"} {
						got := w.ask(t, proto, client, netip.AddrPortFrom(to, port))
						if seen, err := netip.ParseAddrPort(got); err != nil || seen.Addr().IsLoopback() {
							t.Errorf("%s client %s: got %q", proto, client, got)
						}
					}
				}
			}
		})
	}
}
