package test

import (
	"bufio"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
)

const secondHost4 = "198.51.100.2" // another address of the host

var udpRestarts = []struct {
	network, driver string
	published       []string
}{
	{"gvisor-tap-vsock", "builtin", []string{host4, secondHost4}},
	{"slirp4netns", "builtin", []string{host4, secondHost4}},
	{"none", "builtin", []string{host4, secondHost4}},
	{"gvisor-tap-vsock", "bypass4netns", []string{host4, secondHost4}},
	{"gvisor-tap-vsock", "gvisor-tap-vsock", []string{host4}},
	{"slirp4netns", "slirp4netns", []string{host4}},
	{"pasta", "pesto", []string{host4}},
}

// TestUDPServerRestarts has clients beyond the host send while the server is away.
// When it is back each is answered at its first datagram, and looks the same to the
// server as before.
func TestUDPServerRestarts(t *testing.T) {
	for _, c := range udpRestarts {
		t.Run(c.network+" "+c.driver, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.shell(t, w.host, "ip addr add "+secondHost4+"/24 dev eth0")
			flags := []string{"--net=" + c.network, "--port-driver=" + c.driver, "--disable-host-loopback"}
			for _, ip := range c.published {
				flags = append(flags, "--publish="+ip+":21001:21001/udp")
			}
			k := newKit(t, append(flags, "sleep", "infinity")...)
			w.launch(t, k)
			var clients []net.Conn
			for i := range 10 {
				from := netip.AddrPortFrom(netip.MustParseAddr(neighbour4), clientPort+uint16(i))
				to := netip.AddrPortFrom(netip.MustParseAddr(c.published[i%len(c.published)]), 21001)
				conn, err := w.dial(t, "udp", from, to)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				clients = append(clients, conn)
			}
			seen := map[int]string{}
			for round := range 3 {
				for _, conn := range clients[:4+3*round] { // some come when it is back
					_, _ = conn.Write([]byte("anybody?"))
				}
				stop := startInside(t, k, "udp/0.0.0.0/21001")
				for i, conn := range clients {
					got := w.exchange(conn)
					if _, err := netip.ParseAddrPort(got); err != nil {
						t.Errorf("round %d: client %d is not answered: %s", round, i, got)
					}
					if was := seen[i]; was != "" && was != got {
						t.Errorf("round %d: client %d was moved from %s to %s", round, i, was, got)
					}
					seen[i] = got
				}
				stop()
			}
		})
	}
}

// startInside runs servers of peers.py in a run's network.
func startInside(t *testing.T, k *kit, servers ...string) (stop func()) {
	t.Helper()
	args := []string{"-U", "--preserve-credentials", "-n", "-t", k.childPID(t), "python3", testdata(t, "peers.py")}
	cmd := exec.CommandContext(t.Context(), "nsenter", append(args, servers...)...)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); !strings.Contains(line, "ready") {
		t.Fatalf("the servers did not start: %q, %v", line, err)
	}
	return func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}
