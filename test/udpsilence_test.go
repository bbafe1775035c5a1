package test

import (
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestUDPReplyAfterSilence has a server answer clients beyond the host long after they
// have asked, twice. How long conntrack inside remembers UDP is made short, so that the
// test need not take that long.
func TestUDPReplyAfterSilence(t *testing.T) {
	for _, c := range []struct{ network, driver string }{
		{"gvisor-tap-vsock", "builtin"},
		{"slirp4netns", "builtin"},
		{"none", "builtin"},
		{"gvisor-tap-vsock", "bypass4netns"},
		{"gvisor-tap-vsock", "gvisor-tap-vsock"},
		{"slirp4netns", "slirp4netns"},
		{"pasta", "pesto"},
	} {
		for _, detach := range []string{"--detach-netns=false", "--detach-netns"} {
			t.Run(c.network+" "+c.driver+" "+detach, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				flags := []string{"--net=" + c.network, "--port-driver=" + c.driver, detach, "--disable-host-loopback",
					"--publish=0.0.0.0:21001:21001/udp4"}
				clients := map[string]string{neighbour4: host4, distant4: host4}
				if strings.HasPrefix(c.driver, "b") && c.network != "none" {
					flags = append(flags, "--ipv6", "--publish=[::]:21001:[::1]:21001/udp6")
					clients[neighbour6], clients[distant6] = host6, host6
				}
				server := []string{"python3", testdata(t, "peers.py"), "udp-late/::/21001"}
				k := w.run(t, 1, slices.Concat(flags, insideOf(detach), server)...)
				late := &lateServer{w, k, insideOf(detach)}
				late.inside(t, "for f in /proc/sys/net/netfilter/nf_conntrack_udp_timeout*; do echo 1 >$f; done")
				var conns []net.Conn
				for from, to := range clients {
					conn, err := w.dial(t, "udp", endpoint(from, clientPort), endpoint(to, 21001))
					if err != nil {
						t.Fatal(err)
					}
					conns = append(conns, conn)
				}
				late.ask(t, conns)
				late.answer(t, conns)
			})
		}
	}
}

func endpoint(ip string, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(ip), port)
}

// insideOf is a command that runs another one in the network of a run, for its own
// commands.
func insideOf(detach string) []string {
	if detach != "--detach-netns" {
		return nil
	}
	return []string{"sh", "-c", `exec nsenter --net=$ROOTLESSKIT_STATE_DIR/netns "$@"`, "-"}
}

// lateServer is peers.py with udp-late.
type lateServer struct {
	*world
	*kit
	network []string
}

// inside runs a script in the network of the run.
func (s *lateServer) inside(t *testing.T, script string) string {
	t.Helper()
	args := []string{"-U", "--preserve-credentials", "-m", "-t", s.childPID(t)}
	if s.network == nil {
		args = append(args, "-n")
	}
	args = append(args, "env", "ROOTLESSKIT_STATE_DIR="+s.stateDir, "PATH=/usr/sbin:/sbin:/usr/bin:/bin")
	r := runCmd(t, exec.CommandContext(t.Context(), "nsenter", slices.Concat(args, s.network, []string{"bash", "-ec", script})...))
	if r.code != 0 {
		t.Fatalf("%s\ncode %d: %s", script, r.code, r.stderr)
	}
	return r.stdout
}

// ask has all clients ask, and waits until the server knows of them.
func (s *lateServer) ask(t *testing.T, clients []net.Conn) {
	t.Helper()
	for _, conn := range clients {
		if _, err := conn.Write([]byte("who am I?")); err != nil {
			t.Fatal(err)
		}
	}
	poll(t, "the clients' questions", func() bool {
		return strings.Count(s.output.String(), "peers: late") == len(clients)
	})
}

// answer has the server answer twice, each time after conntrack would have forgotten
// the clients.
func (s *lateServer) answer(t *testing.T, clients []net.Conn) {
	t.Helper()
	for _, round := range []string{"first", "second"} {
		s.inside(t, "echo ? >/dev/udp/127.0.0.1/9")
		poll(t, "conntrack forgets a datagram", func() bool {
			return !strings.Contains(s.inside(t, "conntrack -L -p udp --dport 9 2>/dev/null"), "udp")
		})
		s.inside(t, "python3 "+testdata(t, "peers.py")+" ask udp 127.0.0.1 127.0.0.1 21001")
		for _, conn := range clients {
			_ = conn.SetReadDeadline(time.Now().Add(s.patience))
			buf := make([]byte, 100)
			if n, err := conn.Read(buf); err != nil || n == 0 {
				t.Errorf("client %s has no %s answer: %v", conn.LocalAddr(), round, err)
			}
		}
	}
}
