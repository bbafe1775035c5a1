package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/netns"
	"rootlesskit/internal/nstest"
	"rootlesskit/internal/sockio"
)

// mainEnv has this test's program be the command itself.
const mainEnv = "ROOTLESSPORT_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(mainEnv) != "" {
		os.Unsetenv(mainEnv)
		main()
		return
	}
	nstest.Main(m)
}

// world is what Podman has: the host's network, over which it has no power, a machine
// of the LAN, and a container's network namespace, which belongs to its user namespace.
type world struct {
	host, lan, container *nstest.Child
	descriptors          int // that the helper may have; 0: as many as the test
}

const (
	hostIPv4, hostIPv6           = "203.0.113.1", "2001:db8::1"
	lanIPv4, lanIPv6             = "203.0.113.7", "2001:db8::7"
	containerIPv4, containerIPv6 = "10.89.0.2", "fd89::2"
)

const dualStack, ipv4Alone = true, false

func newWorld(t *testing.T, ipv6 bool) *world {
	t.Helper()
	w := &world{host: nstest.NewChild(t)}
	w.lan = nstest.NewChildBy(t, append(enter(w.host), "unshare", "--net")...)
	w.container = nstest.NewChildBy(t, append(enter(w.host), "unshare", "--user", "--map-root-user", "--net")...)
	for _, end := range []*nstest.Child{w.host, w.lan, w.container} {
		in(t, end, nstest.NoAddressDetection)
	}
	in(t, w.host, fmt.Sprintf(`
		ip link add lan type veth peer name eth0 netns %d
		ip addr add %s/24 dev lan && ip addr add %s/64 dev lan nodad && ip link set lan up
		ip link add bridge type veth peer name eth0 netns %d
		ip addr add 10.89.0.1/24 dev bridge && ip addr add fd89::1/64 dev bridge nodad && ip link set bridge up`,
		w.lan.PID, hostIPv4, hostIPv6, w.container.PID))
	in(t, w.lan, fmt.Sprintf("ip addr add %s/24 dev eth0; ip addr add %s/64 dev eth0 nodad; ip link set eth0 up", lanIPv4, lanIPv6))
	in(t, w.container, "ip addr add "+containerIPv4+"/24 dev eth0; ip link set eth0 up; ip route add default via 10.89.0.1")
	if ipv6 {
		in(t, w.container, "ip addr add "+containerIPv6+"/64 dev eth0 nodad; ip -6 route add default via fd89::1")
	}
	for _, end := range []*nstest.Child{w.lan, w.container} {
		in(t, end, nstest.AwaitLinks+"await_links eth0")
	}
	in(t, w.host, nstest.AwaitLinks+"await_links lan bridge")
	return w
}

func enter(c *nstest.Child) []string {
	return []string{"nsenter", "--target", strconv.Itoa(c.PID), "--user", "--net", "--preserve-credentials"}
}

// in runs a script in a namespace.
func in(t *testing.T, c *nstest.Child, script string) string {
	t.Helper()
	args := append(enter(c), "sh", "-ec", "PATH=$PATH:/usr/sbin:/sbin\n"+script)
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
	return string(out)
}

// helper is a running rootlessport.
type helper struct {
	cmd    *exec.Cmd
	output *bytes.Buffer
	exit   *os.File // its end ends it
	socket string
}

// configure completes what the helper is told.
func (w *world) configure(t *testing.T, mappings ...mapping) *config {
	return &config{
		Mappings: mappings, NetNSPath: w.container.NetnsPath(), ReadyFD: 4, ExitFD: 5,
		TmpDir: t.TempDir(), ChildIP: containerIPv4, ContainerID: "c0ffee", RootlessCNI: true,
	}
}

func tcpPort(host, container int) mapping {
	return mapping{HostPort: host, ContainerPort: container, Protocol: "tcp"}
}

// start starts the helper as Podman does, and returns what it has told by the time
// that it is ready, or has ended.
func (w *world) start(t *testing.T, input any) (h *helper, ready string) {
	t.Helper()
	h = &helper{output: &bytes.Buffer{}}
	if cfg, ok := input.(*config); ok {
		h.socket = filepath.Join(cfg.TmpDir, "rp", cfg.ContainerID)
	}
	text, ok := input.(string)
	if !ok {
		b, err := json.Marshal(input)
		if err != nil {
			t.Fatal(err)
		}
		text = string(b)
	}
	prefix := append(enter(w.host), "nsenter", "--target", strconv.Itoa(w.container.PID), "--user", "--preserve-credentials")
	if w.descriptors > 0 {
		prefix = append(prefix, "prlimit", fmt.Sprintf("--nofile=%d", w.descriptors))
	}
	h.cmd = nstest.Self(t, prefix...)
	readyR, readyW := pipe(t)
	exitR, exitW := pipe(t)
	h.exit = exitW
	h.cmd.ExtraFiles = append(h.cmd.ExtraFiles, readyW, exitR)
	h.cmd.Env = append(os.Environ(), mainEnv+"=1")
	h.cmd.Stdin, h.cmd.Stdout, h.cmd.Stderr = bytes.NewReader([]byte(text)), h.output, os.Stderr
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	readyW.Close()
	exitR.Close()
	t.Cleanup(func() { h.wait(t) })
	_ = readyR.SetReadDeadline(time.Now().Add(time.Minute))
	told, err := io.ReadAll(readyR)
	if err != nil {
		t.Fatalf("waiting for the helper to be ready: %v", err)
	}
	return h, string(told)
}

// publish starts a helper that has to get ready.
func (w *world) publish(t *testing.T, cfg *config) *helper {
	t.Helper()
	h, ready := w.start(t, cfg)
	if ready != "1" {
		_ = h.cmd.Wait()
		t.Fatalf("the helper tells %q, and says %q", ready, h.output)
	}
	return h
}

// wait ends the helper, and returns its exit status.
func (h *helper) wait(t *testing.T) int {
	t.Helper()
	h.exit.Close()
	if h.cmd.ProcessState == nil {
		timer := time.AfterFunc(time.Minute, func() {
			t.Error("the helper did not end within a minute of its ExitFD")
			_ = h.cmd.Process.Kill()
		})
		_ = h.cmd.Wait()
		timer.Stop()
	}
	return h.cmd.ProcessState.ExitCode()
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// dial connects from a namespace.
func dial(t *testing.T, from *nstest.Child, network, to string) (net.Conn, error) {
	t.Helper()
	addr := netip.MustParseAddrPort(to)
	req := netns.SocketRequest{Family: sockio.Family(addr.Addr()), Type: unix.SOCK_STREAM, Count: 1}
	if network == "udp" {
		req.Type = unix.SOCK_DGRAM
	}
	fds, err := netns.Sockets(t.Context(), from, req)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[0]), to)
	defer f.Close()
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(addr.Port()), Addr: [4]byte(addr.Addr().AsSlice())}
	if addr.Addr().Is6() {
		sa = &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}
	}
	err = unix.Connect(fds[0], sa)
	if err == unix.EINPROGRESS {
		err = nstest.AwaitConnect(fds[0])
	}
	if err != nil {
		return nil, os.NewSyscallError("connect", err)
	}
	return net.FileConn(f)
}

// whoami returns the address as which a server of the container sees a client at a port
// of the host.
func whoami(t *testing.T, from *nstest.Child, network, to string) (string, error) {
	t.Helper()
	c, err := dial(t, from, network, to)
	if err != nil {
		return "", err
	}
	defer c.Close()
	return ask(c)
}

func ask(c net.Conn) (string, error) {
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := c.Write([]byte("?")); err != nil {
		return "", err
	}
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	if err != nil {
		return "", err
	}
	seen, err := netip.ParseAddrPort(string(buf[:n]))
	return seen.Addr().String(), err
}

// serve answers who the client is, in the container.
func (w *world) serve(t *testing.T, network, address string) {
	t.Helper()
	if network == "udp" {
		nstest.AnswerUDP(t, w.container.ListenUDP(t, network, address))
	} else {
		nstest.AnswerTCP(t, w.container.ListenTCP(t, network, address))
	}
}
