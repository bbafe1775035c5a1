package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/nstest"
)

func TestServersSeeTheirClients(t *testing.T) {
	for _, ipv6 := range []bool{ipv4Alone, dualStack} {
		t.Run(fmt.Sprintf("ipv6=%v", ipv6), func(t *testing.T) {
			w := newWorld(t, ipv6)
			w.publish(t, w.configure(t, mapping{HostPort: 8080, ContainerPort: 80, Protocol: "tcp,udp"}))
			udp6 := containerIPv4
			if ipv6 {
				udp6 = lanIPv6
			}
			for _, network := range []string{"tcp", "udp"} {
				w.serve(t, network, "[::]:80")
				for _, c := range []struct{ from, at, tcp, udp string }{
					{"lan", hostIPv4, lanIPv4, lanIPv4},
					{"lan", hostIPv6, lanIPv6, udp6},
					{"loopback", "127.0.0.1", containerIPv4, containerIPv4},
					{"loopback", "::1", containerIPv4, containerIPv4},
					{"host", hostIPv4, hostIPv4, hostIPv4},
				} {
					from, want := w.host, c.tcp
					if c.from == "lan" {
						from = w.lan
					}
					if network == "udp" {
						want = c.udp
					}
					got, err := whoami(t, from, network, net.JoinHostPort(c.at, "8080"))
					if err != nil || got != want {
						t.Errorf("%s from %s at %s: the server sees %q, %v, want %s", network, c.from, c.at, got, err, want)
					}
				}
			}
		})
	}
}

// What is on loopback alone is the container's own business, and a client with an
// address of the container's network is not shown as a neighbour.
func TestWhatIsNotPublished(t *testing.T) {
	w := newWorld(t, dualStack)
	w.publish(t, w.configure(t, tcpPort(8080, 80), tcpPort(8081, 81)))
	w.serve(t, "tcp", "127.0.0.1:80")
	w.serve(t, "tcp", "0.0.0.0:81")
	for from, at := range map[string]string{"lan": hostIPv4, "host": "127.0.0.1"} {
		c := w.host
		if from == "lan" {
			c = w.lan
		}
		if got, err := whoami(t, c, "tcp", at+":8080"); err == nil {
			t.Errorf("a client of the %s reaches a server on loopback, as %s", from, got)
		}
	}
	if got, err := whoami(t, w.host, "tcp", "10.89.0.1:8081"); err != nil || got != containerIPv4 {
		t.Errorf("a neighbour's address is shown as %q, %v, want %s", got, err, containerIPv4)
	}
}

func TestLife(t *testing.T) {
	w := newWorld(t, ipv4Alone)
	cfg := w.configure(t, mapping{HostIP: hostIPv4, HostPort: 8080, ContainerPort: 80, Range: 3, Protocol: "tcp"})
	cfg.TmpDir = filepath.Join(cfg.TmpDir, strings.Repeat("d", 120))
	w.serve(t, "tcp", "0.0.0.0:82")
	h := w.publish(t, cfg)
	if got, err := whoami(t, w.lan, "tcp", hostIPv4+":8082"); err != nil || got != lanIPv4 {
		t.Errorf("the last port of a range: %q, %v", got, err)
	}
	if _, err := whoami(t, w.host, "tcp", "127.0.0.1:8082"); err == nil {
		t.Error("a port of one address is open at another")
	}
	for fd, want := range map[int]string{1: os.DevNull, 2: os.DevNull} {
		if got, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", h.cmd.Process.Pid, fd)); err == nil && got != want {
			t.Errorf("descriptor %d is %s, want %s", fd, got, want)
		}
	}
	if _, err := os.Stat(h.socket); err != nil {
		t.Error(err)
	}
	if code := h.wait(t); code != 0 {
		t.Errorf("the exit status is %d, output %q", code, h.output)
	}
	if _, err := os.Lstat(h.socket); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
	if _, err := whoami(t, w.lan, "tcp", hostIPv4+":8082"); err == nil {
		t.Error("the port is open after the end")
	}
}

// A helper that was killed leaves its socket behind, which is in nobody's way.
func TestStartsAfterKill(t *testing.T) {
	w := newWorld(t, ipv4Alone)
	cfg := w.configure(t, tcpPort(8080, 80))
	h := w.publish(t, cfg)
	if err := h.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	h.wait(t)
	if _, err := os.Lstat(h.socket); err != nil {
		t.Fatalf("the socket of a killed helper: %v", err)
	}
	h = w.publish(t, cfg)
	if answer := h.ask(t, `"10.89.0.2"`); answer != "OK" {
		t.Errorf("the answer is %q", answer)
	}
}

func TestSocketOnlyOfBridgeNetworks(t *testing.T) {
	w := newWorld(t, ipv4Alone)
	cfg := w.configure(t, tcpPort(8080, 80))
	cfg.RootlessCNI = false
	h := w.publish(t, cfg)
	if _, err := os.Lstat(filepath.Dir(h.socket)); !os.IsNotExist(err) {
		t.Errorf("the socket: %v", err)
	}
}

// ask sends a packet to the helper's socket.
func (h *helper) ask(t *testing.T, packet string) string {
	t.Helper()
	c := h.dial(t)
	defer c.Close()
	if _, err := c.Write([]byte(packet)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1000)
	n, err := c.Read(buf)
	if err != nil {
		return fmt.Sprintf("none: %v", err)
	}
	return string(buf[:n])
}

// dial connects to the helper's socket, whose path may be too long for an address.
func (h *helper) dial(t *testing.T) *net.UnixConn {
	t.Helper()
	dir, err := os.Open(filepath.Dir(h.socket))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	c, err := net.Dial("unixpacket", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(h.socket)))
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return c.(*net.UnixConn)
}

// The socket is closed after its client has read the answer, not before.
func TestAnswerBeforeEnd(t *testing.T) {
	w := newWorld(t, ipv4Alone)
	h := w.publish(t, w.configure(t, tcpPort(8080, 80)))
	c := h.dial(t)
	defer c.Close()
	if _, err := c.Write([]byte(`"10.89.0.2"`)); err != nil {
		t.Fatal(err)
	}
	if got := pollEvents(t, c, unix.POLLIN, time.Minute); got != unix.POLLIN {
		t.Fatalf("poll returns %#x instead of an answer", got)
	}
	if got := pollEvents(t, c, unix.POLLRDHUP, 200*time.Millisecond); got != 0 {
		t.Errorf("the socket is closed before its answer is read: poll returns %#x", got)
	}
	got, err := io.ReadAll(c)
	if err != nil || string(got) != "OK" {
		t.Errorf("the answer is %q, %v", got, err)
	}
}

func pollEvents(t *testing.T, c *net.UnixConn, events int16, patience time.Duration) (got int16) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	ctlErr := raw.Control(func(fd uintptr) { got, err = nstest.Poll(int(fd), events, patience) })
	if err := errors.Join(ctlErr, err); err != nil {
		t.Fatal(err)
	}
	return got
}

// podman network reload: nothing is lost.
func TestReload(t *testing.T) {
	w := newWorld(t, dualStack)
	w.serve(t, "tcp", "[::]:80")
	h := w.publish(t, w.configure(t, tcpPort(8080, 80)))
	established, err := dial(t, w.lan, "tcp", hostIPv4+":8080")
	if err != nil {
		t.Fatal(err)
	}
	defer established.Close()
	stop := make(chan struct{})
	reloaded := h.reload(t, stop)
	failed := 0
	for i := range 300 {
		if got, err := whoami(t, w.lan, "tcp", hostIPv4+":8080"); err != nil || got != lanIPv4 {
			t.Errorf("connection %d: %q, %v", i, got, err)
			failed++
		}
	}
	close(stop)
	if answer, bad := <-reloaded; bad {
		t.Errorf("the answer to a reload is %q", answer)
	}
	if failed > 0 {
		t.Errorf("%d of 300 connections failed", failed)
	}
	if got, err := ask(established); err != nil || got != lanIPv4 {
		t.Errorf("the connection from before the reload: %q, %v", got, err)
	}
}

// reload reloads a helper again and again, until one fails, which it tells, or to the
// stop.
func (h *helper) reload(t *testing.T, stop <-chan struct{}) <-chan string {
	reloaded := make(chan string)
	go func() {
		defer close(reloaded)
		for {
			select {
			case <-stop:
				return
			default:
				if answer := h.ask(t, `"10.89.0.2"`); answer != "OK" {
					reloaded <- answer
					return
				}
			}
		}
	}()
	return reloaded
}

// podman network connect and disconnect: the ports follow.
func TestOtherNetwork(t *testing.T) {
	w := newWorld(t, ipv4Alone)
	h := w.publish(t, w.configure(t, mapping{HostPort: 8080, ContainerPort: 80, Protocol: "tcp,udp"}))
	for _, network := range []string{"tcp", "udp"} {
		w.serve(t, network, "[::]:80")
	}
	check := func(what, own string) {
		t.Helper()
		for _, network := range []string{"tcp", "udp"} {
			if got, err := whoami(t, w.lan, network, hostIPv4+":8080"); err != nil || got != lanIPv4 {
				t.Errorf("%s, %s of the LAN: %q, %v", what, network, got, err)
			}
			if got, err := whoami(t, w.host, network, "127.0.0.1:8080"); err != nil || got != own {
				t.Errorf("%s, %s of loopback: %q, %v, want %s", what, network, got, err, own)
			}
		}
	}
	check("at first", containerIPv4)
	in(t, w.container, "ip addr flush dev eth0; ip addr add 10.90.0.5/24 dev eth0; ip route add default via 10.90.0.1")
	if answer := h.ask(t, `"10.90.0.5"`); answer != "OK" {
		t.Fatalf("the answer is %q", answer)
	}
	check("on another network", "10.90.0.5")
	for packet, want := range map[string]string{`"10.90"`: `invalid child IP "10.90"`, `7`: "expected a JSON string", `"`: "expected a JSON string"} {
		if answer := h.ask(t, packet); !strings.HasPrefix(answer, want) {
			t.Errorf("the answer to %s is %q, want %q", packet, answer, want)
		}
	}
	check("after nonsense", "10.90.0.5")
	if answer := h.ask(t, `""`); answer != "OK" { // disconnected from all
		t.Errorf("the answer is %q", answer)
	}
	check("without an address", "10.90.0.5")
}

// Nearly a thousand ports, where a process may have 1,024 descriptors.
func TestManyPorts(t *testing.T) {
	const ports = 980
	w := newWorld(t, ipv4Alone)
	w.descriptors = 1024
	m := tcpPort(20000, 1000)
	m.Range = ports
	w.serve(t, "tcp", "0.0.0.0:1000")
	w.serve(t, "tcp", fmt.Sprintf("0.0.0.0:%d", 1000+ports-1))
	w.publish(t, w.configure(t, m))
	for _, port := range []int{20000, 20000 + ports - 1} {
		if got, err := whoami(t, w.lan, "tcp", fmt.Sprintf("%s:%d", hostIPv4, port)); err != nil || got != lanIPv4 {
			t.Errorf("port %d: %q, %v", port, got, err)
		}
	}
}

// Errors are one line on the standard output, and nothing is published.
func TestRefusals(t *testing.T) {
	w := newWorld(t, ipv4Alone)
	taken := w.host.ListenTCP(t, "tcp", "0.0.0.0:18080")
	defer taken.Close()
	set := func(change func(*config)) *config {
		cfg := w.configure(t, tcpPort(8080, 80), tcpPort(8081, 81))
		change(cfg)
		return cfg
	}
	for want, input := range map[string]any{
		"listen tcp 0.0.0.0:18080: bind: address already in use":            set(func(c *config) { c.Mappings[1].HostPort = 18080 }),
		"listen tcp 192.0.2.77:8081: bind: cannot assign requested address": set(func(c *config) { c.Mappings[1].HostIP = "192.0.2.77" }),
		"cannot expose privileged port 81, you can add 'net.ipv4.ip_unprivileged_port_start=81' to /etc/sysctl.conf (currently 1024), " +
			"or choose a larger port number (>= 1024): listen tcp 0.0.0.0:81: bind: permission denied": set(func(c *config) { c.Mappings[1].HostPort = 81 }),
		`unsupported port protocol "sctp": tcp and udp can be published`:        set(func(c *config) { c.Mappings[1].Protocol = "sctp" }),
		"ports 65535 to 65536 are not in 1-65535":                               set(func(c *config) { c.Mappings[1].HostPort, c.Mappings[1].Range = 65535, 2 }),
		"ReadyFD and ExitFD are both 5":                                         set(func(c *config) { c.ReadyFD = 5 }),
		"ExitFD: the descriptor 99 was not inherited":                           set(func(c *config) { c.ExitFD = 99 }),
		"opening the network namespace: open /none: no such file or directory":  set(func(c *config) { c.NetNSPath = "/none" }),
		`invalid child IP "ten"`:                                                set(func(c *config) { c.ChildIP = "ten" }),
		"the configuration on the standard input: unexpected end of JSON input": "",
		"missing NetNSPath":                                                     "{}",
	} {
		h, ready := w.start(t, input)
		_ = h.cmd.Wait()
		if got := h.output.String(); got != want+"\n" || ready != "" || h.cmd.ProcessState.ExitCode() != 1 {
			t.Errorf("exit status %d, ready %q, output\n%swant\n%s", h.cmd.ProcessState.ExitCode(), ready, got, want)
		}
		if _, err := dial(t, w.host, "tcp", "127.0.0.1:8080"); err == nil {
			t.Errorf("%s: a port was published", want)
		}
	}
}

func TestArgumentsAreRefused(t *testing.T) {
	if err := run([]string{"--help"}, strings.NewReader("{}")); err == nil || !strings.Contains(err.Error(), "too many arguments") {
		t.Errorf("got %v", err)
	}
}

// TestPodmanGone: nobody waits for the ports any more.
func TestPodmanGone(t *testing.T) {
	r, w := pipe(t)
	r.Close()
	fd, err := unix.Dup(int(w.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	ready := os.NewFile(uintptr(fd), "ready")
	defer ready.Close()
	if err := tellReady(ready); err == nil {
		t.Error("a pipe that nobody reads was written to")
	}
}
