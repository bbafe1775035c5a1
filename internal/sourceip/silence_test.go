package sourceip

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/nstest"
)

// silentServers are servers that speak when conntrack has forgotten the client.
var silentServers = []struct {
	listen, target string
	client         netip.AddrPort
	inside         bool // a container
}{
	{"0.0.0.0:1001", "127.0.0.1:1001", client4, false},
	{"10.0.2.100:1001", "10.0.2.100:1001", client4, false},
	{"[::]:1001", "[::1]:1001", client6, false},
	{"0.0.0.0:80", "127.0.0.1:8080", client4, true},
	{"0.0.0.0:80", "172.17.0.2:80", client4, true},
	{"[::]:80", "[::1]:8080", client6, true},
}

// TestServerSpeaksAfterSilence: what a UDP server sends gets to its client however
// long both were silent, before the first reply and after it. conntrack's patience
// with UDP is made short, so that the test need not have more.
func TestServerSpeaksAfterSilence(t *testing.T) {
	for _, c := range silentServers {
		t.Run(fmt.Sprintf("%s at %s, container %t", c.listen, c.target, c.inside), func(t *testing.T) {
			w := newWorld(t, own)
			at := w
			if c.inside {
				w, at = newContainerWorld(t)
			}
			w.run(t, "for f in /proc/sys/net/netfilter/nf_conntrack_udp_timeout*; do echo 1 > $f; done")
			server := at.listenUDP(t, c.listen)
			client, err := w.dial(t, "udp", w.port(t, "udp", c.target).Resolve(t.Context(), c.client))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := client.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 64)
			_, from, err := server.ReadFrom(buf)
			if err != nil || nstest.Peer(from) != c.client.String() {
				t.Fatalf("the server got something from %v, %v; want %s", from, err, c.client)
			}
			for _, words := range []string{"the first reply", "another"} {
				w.outwaitConntrack(t)
				if _, err := server.WriteTo([]byte(words), from); err != nil {
					t.Fatal(err)
				}
				_ = client.SetReadDeadline(time.Now().Add(time.Minute))
				n, err := client.Read(buf)
				if err != nil || string(buf[:n]) != words {
					t.Errorf("the client got %q, %v; want %q", buf[:n], err, words)
				}
			}
		})
	}
}

// outwaitConntrack returns when conntrack has forgotten a datagram that was sent
// after the call, on lo and by nobody from outside.
func (w *world) outwaitConntrack(t *testing.T) {
	t.Helper()
	server := w.listenUDP(t, "127.0.0.1:0")
	control, err := w.dial(t, "udp", Route{Target: netip.MustParseAddrPort(server.LocalAddr().String())})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := control.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	port := control.LocalAddr().(*net.UDPAddr).Port
	eventually(t, "conntrack forgets a datagram", func() bool {
		return !strings.Contains(w.run(t, fmt.Sprintf("conntrack -L -p udp --orig-port-src %d", port)), "udp")
	})
}

// TestPatienceIsBounded: a flood of clients gets no more room in conntrack's table than
// the relay has for flows.
func TestPatienceIsBounded(t *testing.T) {
	w := newWorld(t, own)
	w.listenUDP(t, "0.0.0.0:1001")
	w.port(t, "udp", "127.0.0.1:1001").Resolve(t.Context(), client4) // makes the marks
	fd := w.socket(t, "udp", client4.Addr(), true)
	client := os.NewFile(uintptr(fd), "client")
	defer client.Close()
	if err := unix.Bind(fd, sockaddr(client4)); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	const flows = 2 * patienceBurst
	for i := range flows {
		_ = unix.Sendto(fd, nil, 0, sockaddr(netip.AddrPortFrom(tap4.Addr(), uint16(2000+i))))
	}
	most := patienceBurst + patienceRate*(int(time.Since(start).Seconds())+1)
	patient := w.run(t, fmt.Sprintf("conntrack -L -p udp -s %s 2>/dev/null | awk '$3 > 1000' | wc -l", client4.Addr()))
	n, err := strconv.Atoi(strings.TrimSpace(patient))
	if err != nil || n < patienceBurst/2 || n > most {
		t.Errorf("%s of %d flows are kept for long, want %d to %d", patient, flows, patienceBurst/2, most)
	}
}

// TestKernelWithoutPatience: kernels that cannot keep flows for long show clients all
// the same.
func TestKernelWithoutPatience(t *testing.T) {
	w := newWorld(t, own)
	for i, proto := range protos {
		w.serve(t, proto, "0.0.0.0:1001")
		w.expectReal(t, proto, w.at(impatient).port(t, proto, "127.0.0.1:1001"), clientFor(client4, i))
	}
	if rules := w.run(t, "nft list table ip rootlesskit"); strings.Contains(rules, patienceName) || !strings.Contains(rules, "chain output") {
		t.Errorf("the table is\n%s", rules)
	}
}
