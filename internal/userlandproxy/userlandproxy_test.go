package userlandproxy

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// find asks who listens, and closes the proxy with the test.
func (w *world) find(t *testing.T, proto int, at string) Listener {
	t.Helper()
	l, err := Find(t.Context(), w, proto, netip.MustParseAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Proxy.Close)
	return l
}

// leads asks where a TCP port leads; "" is nowhere but to its listener.
func (w *world) leads(t *testing.T, at string) string {
	t.Helper()
	l := w.find(t, unix.IPPROTO_TCP, at)
	switch {
	case l.Age < 0:
		return "nobody listens"
	case l.Proxy == nil:
		return "no proxy"
	case !l.Proxy.Container.IsValid():
		return l.Proxy.Problem
	case !l.Proxy.Alive():
		return "an ended proxy"
	}
	return l.Proxy.Container.String()
}

func args(hostIP string, hostPort int, container string) string {
	c := netip.MustParseAddrPort(container)
	return fmt.Sprintf("/usr/bin/docker-proxy -proto tcp -host-ip %s -host-port %d -container-ip %s -container-port %d", hostIP, hostPort, c.Addr(), c.Port())
}

func TestFind(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct{ args, at, want string }{
		{args("127.0.0.1", 8080, "172.17.0.2:80"), "127.0.0.1:8080", "172.17.0.2:80"},
		{args("::1", 8081, "172.17.0.2:80"), "[::1]:8081", "172.17.0.2:80"},
		{args("::1", 8082, "[fd17::2]:80"), "[::1]:8082", "[fd17::2]:80"},
		{args("0.0.0.0", 8083, "172.17.0.2:80"), "10.0.2.100:8083", "172.17.0.2:80"},
		{args("127.0.0.1", 8084, "172.17.0.2:80"), "127.0.0.2:8084", "nobody listens"},
		{strings.Replace(args("127.0.0.1", 8085, "172.17.0.2:80"), "docker-proxy", "socat", 1), "127.0.0.1:8085", "no proxy"},
		{"socat -host-ip 0.0.0.0 -host-port 8086", "127.0.0.1:8086", "no proxy"},
	} {
		w.start(t, c.args, false)
		if got := w.leads(t, c.at); got != c.want {
			t.Errorf("%s: %s leads to %q, want %q", c.args, c.at, got, c.want)
		}
	}
	w.start(t, strings.Replace(args("127.0.0.1", 8053, "172.17.0.2:53"), "tcp", "udp", 1), false)
	if l := w.find(t, unix.IPPROTO_UDP, "127.0.0.1:8053"); l.Proxy == nil || l.Proxy.Container.String() != "172.17.0.2:53" {
		t.Errorf("a UDP proxy is found as %+v", l)
	}
	if got := w.leads(t, "127.0.0.1:8053"); got != "nobody listens" {
		t.Errorf("TCP beside a UDP proxy: %s", got)
	}
}

// TestForged: a command line that was written to lead elsewhere leads nowhere.
func TestForged(t *testing.T) {
	w := newWorld(t)
	for i, c := range []struct{ container, want string }{
		{"127.0.0.1:80", "127.0.0.1 is not the address of a container"},
		{"[::1]:80", "::1 is not the address of a container"},
		{"[::ffff:127.0.0.1]:80", "127.0.0.1 is not the address of a container"},
		{"0.0.0.0:80", "0.0.0.0 is not the address of a container"},
		{"[::]:80", ":: is not the address of a container"},
		{"224.0.0.1:80", "224.0.0.1 is not the address of a container"},
		{"255.255.255.255:80", "255.255.255.255 is not the address of a container"},
		{"169.254.169.254:80", "169.254.169.254 is not the address of a container"},
		{"[fe80::1]:80", "fe80::1 is not the address of a container"},
		{"172.17.0.1:80", "172.17.0.1 is the namespace's own address, or is not in use"},
		{"172.17.255.255:80", "172.17.255.255 is the namespace's own address, or is not in use"},
		{"[fd17::1]:80", "fd17::1 is the namespace's own address, or is not in use"},
		{"10.0.2.100:80", "10.0.2.100 is the namespace's own address, or is not in use"},
		{"10.0.2.2:80", "10.0.2.2 is on the network of the uplink"},
		{"[fd00::2]:80", "fd00::2 is on the network of the uplink"},
		{"198.51.100.1:80", "198.51.100.1 is behind a gateway"},
		{"[2001:db8:51::1]:80", "2001:db8:51::1 is behind a gateway"},
		{"192.168.7.1:80", "192.168.7.1 is behind a gateway"},
		{"192.168.8.2:80", "192.168.8.2 is on veth0, which is not a bridge"},
	} {
		port := 9000 + i
		w.start(t, args("127.0.0.1", port, c.container), false)
		if got := w.leads(t, fmt.Sprintf("127.0.0.1:%d", port)); got != c.want {
			t.Errorf("%s: %q, want %q", c.container, got, c.want)
		}
	}
}

// TestBystander: the command line of a process that does not have the socket, or is
// elsewhere, or names another port, is not asked.
func TestBystander(t *testing.T) {
	w := newWorld(t)
	w.start(t, "socat -host-ip 127.0.0.1 -host-port 8080", false)
	w.start(t, args("127.0.0.2", 8080, "172.17.0.2:80"), false)
	w.start(t, args("127.0.0.1", 8080, "172.17.0.2:80"), true)
	if got := w.leads(t, "127.0.0.1:8080"); got != "no proxy" {
		t.Errorf("a server beside proxies leads to %q", got)
	}
	if got := w.leads(t, "127.0.0.2:8080"); got != "172.17.0.2:80" {
		t.Errorf("a proxy beside a server leads to %q", got)
	}
}

// TestRestart: another proxy at the same address, or none, is seen at once, and
// whoever holds the old answer can tell.
func TestRestart(t *testing.T) {
	w := newWorld(t)
	for i := range 5 {
		container := fmt.Sprintf("172.17.0.%d:80", 2+i)
		pid := w.start(t, args("127.0.0.1", 8080, container), false)
		if got := w.leads(t, "127.0.0.1:8080"); got != container {
			t.Errorf("%q, want %q", got, container)
		}
		l := w.find(t, unix.IPPROTO_TCP, "127.0.0.1:8080")
		w.stop(t, pid)
		if l.Proxy.Alive() {
			t.Error("an ended proxy is alive")
		}
		if got := w.leads(t, "127.0.0.1:8080"); got != "nobody listens" {
			t.Errorf("after the end: %q", got)
		}
	}
}

// TestHandedOver: an engine may listen itself, and hand the socket over to its proxy
// later.
func TestHandedOver(t *testing.T) {
	w := newWorld(t)
	pid := w.start(t, strings.Replace(args("127.0.0.1", 8080, "172.17.0.2:80"), "docker-proxy", "engine", 1), false)
	if got := w.leads(t, "127.0.0.1:8080"); got != "no proxy" {
		t.Fatalf("an engine that listens leads to %q", got)
	}
	if err := unix.Kill(pid, unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	got := ""
	for deadline := time.Now().Add(time.Minute); got != "172.17.0.2:80"; time.Sleep(5 * time.Millisecond) {
		if got = w.leads(t, "127.0.0.1:8080"); time.Now().After(deadline) {
			t.Fatalf("still waiting for the proxy that has the socket now to be seen: %s", got)
		}
	}
}

// TestBridgeGone: the rules hold at the time of the question.
func TestBridgeGone(t *testing.T) {
	w := newWorld(t)
	w.start(t, args("127.0.0.1", 8080, "172.17.0.2:80"), false)
	if got := w.leads(t, "127.0.0.1:8080"); got != "172.17.0.2:80" {
		t.Fatalf("got %q", got)
	}
	w.run(t, "ip link del docker0")
	if got := w.leads(t, "127.0.0.1:8080"); got != "172.17.0.2 is behind a gateway" {
		t.Errorf("without its bridge, got %q", got)
	}
	w.run(t, "ip link add br0 type bridge; ip addr add 172.17.0.1/16 dev br0; ip link set br0 up; ip route replace default via 172.17.0.9")
	if got := w.leads(t, "127.0.0.1:8080"); got != "172.17.0.2 is on the network of the uplink" {
		t.Errorf("on a bridge that is the uplink, got %q", got)
	}
}

// hostile answers as a child that has become the command's may.
type hostile struct {
	reply answer
	fds   []int
}

func (h hostile) Call(_ context.Context, _ string, _, reply any) ([]int, error) {
	b, err := json.Marshal(h.reply)
	if err == nil {
		err = json.Unmarshal(b, reply)
	}
	return h.fds, err
}

func TestHostileChild(t *testing.T) {
	at := netip.MustParseAddrPort("127.0.0.1:8080")
	for _, c := range []string{"127.0.0.1:80", "[::1]:80", "0.0.0.0:80", "[fe80::1]:80", "[::ffff:172.17.0.2]:80", "172.17.0.2:0"} {
		h := hostile{reply: answer{Proxy: true, Container: netip.MustParseAddrPort(c)}}
		if l, err := Find(t.Context(), h, unix.IPPROTO_TCP, at); err == nil {
			t.Errorf("%s is taken for a container: %+v", c, l)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	fd, err := unix.FcntlInt(r.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	h := hostile{answer{Proxy: true, Container: netip.MustParseAddrPort("172.17.0.2:80")}, []int{fd}}
	if l, err := Find(t.Context(), h, unix.IPPROTO_TCP, at); err == nil {
		t.Errorf("a pipe is taken for a process: %+v", l)
	}
}
