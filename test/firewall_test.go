package test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rootlesskit/internal/relay"
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
			k.inside(t, rules, "nft -f -")
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

// inside runs a shell's command in the namespace of a run, and returns what it prints.
func (k *kit) inside(t *testing.T, stdin, command string) string {
	t.Helper()
	return k.enter(t, stdin, command, "-n", "-t", k.childPID(t))
}

// inNetwork is inside for the network of a run, which may be detached.
func (k *kit) inNetwork(t *testing.T, stdin, command string) string {
	t.Helper()
	path := filepath.Join(k.stateDir, "netns")
	if _, err := os.Stat(path); err != nil {
		return k.inside(t, stdin, command)
	}
	return k.enter(t, stdin, command, "-m", "-t", k.childPID(t), "nsenter", "--net="+path)
}

// enter runs a shell's command by nsenter, which enters the user namespace first, with
// more arguments.
func (k *kit) enter(t *testing.T, stdin, command string, args ...string) string {
	t.Helper()
	cmd := k.nsenter(t, command, args...)
	cmd.Stdin = strings.NewReader(stdin)
	r := runCmd(t, cmd)
	if r.code != 0 {
		t.Fatalf("%s: code %d: %s", command, r.code, r.stderr)
	}
	return r.stdout
}

// nsenter is what enter runs.
func (k *kit) nsenter(t *testing.T, command string, args ...string) *exec.Cmd {
	args = slices.Concat([]string{"-U", "--preserve-credentials"}, args, []string{"sh", "-c", "PATH=$PATH:/usr/sbin; " + command})
	return exec.CommandContext(t.Context(), "nsenter", args...)
}

// TestFirewallTellsOnce: what lets nobody but loopback get to loopback costs the first
// clients a moment and the log a line, and no descriptors.
func TestFirewallTellsOnce(t *testing.T) {
	w := newWorld(t)
	k := newKit(t, "--net=gvisor-tap-vsock", "--port-driver=builtin", "--disable-host-loopback",
		"--publish=0.0.0.0:21001:21001/tcp", "sleep", "infinity")
	w.launch(t, k)
	k.inside(t, firewallsInside["nobody but loopback gets to loopback"], "nft -f -")
	defer startInside(t, k, "tcp/0.0.0.0/21001")()
	idle := k.descriptors(t)
	for range 2 {
		for i, c := range w.crowd(t) {
			if got := w.exchange(c); got != c.LocalAddr().String() {
				t.Errorf("client %d: got %q", i, got)
			}
			c.Close()
		}
		k.awaitIdle(t, idle)
	}
	if n := strings.Count(k.output.String(), "are not answered"); n != 1 {
		t.Errorf("it was said %d times: %s", n, k.output)
	}
}

// TestFirewallAgainstAll: clients of a server that is behind a firewall in every way
// leave nothing behind when they give up.
func TestFirewallAgainstAll(t *testing.T) {
	w := newWorld(t)
	k := newKit(t, "--net=gvisor-tap-vsock", "--port-driver=builtin", "--disable-host-loopback",
		"--publish=0.0.0.0:21001:21001/tcp", "sleep", "infinity")
	w.launch(t, k)
	k.inside(t, `table inet closed {
	chain input { type filter hook input priority filter; tcp dport 21001 drop; }
}`, "nft -f -")
	defer startInside(t, k, "tcp/0.0.0.0/21001")()
	idle := k.descriptors(t)
	atOnce, late := w.crowd(t), w.crowd(t)
	for _, c := range atOnce {
		c.Close()
	}
	poll(t, "the first way to be given up", func() bool {
		return strings.Contains(k.output.String(), "are not answered")
	})
	for _, c := range late {
		if _, err := c.Write([]byte("is anybody there?")); err != nil {
			t.Error(err)
		}
		c.Close()
	}
	k.awaitIdle(t, idle)
}

// crowd connects more clients to port 21001 of the host than the relay keeps sockets
// ready for.
func (w *world) crowd(t *testing.T) (conns []net.Conn) {
	t.Helper()
	for range 2 * relay.PoolSize {
		c, err := w.dial(t, "tcp", netip.MustParseAddrPort(neighbour4+":0"), netip.MustParseAddrPort(host4+":21001"))
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	return conns
}

func (k *kit) descriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", k.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

// awaitIdle waits until a crowd has left nothing but the sockets that are kept ready.
func (k *kit) awaitIdle(t *testing.T, idle int) {
	t.Helper()
	poll(t, "the descriptors of clients that have left to be closed", func() bool { return k.descriptors(t) < idle+relay.PoolSize+25 })
	poll(t, "connections to the server to end", func() bool {
		return k.inside(t, "", "ss -Htn state syn-sent state close-wait dport = 21001") == ""
	})
}
