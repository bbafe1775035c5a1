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
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/netns"
	"rootlesskit/internal/nstest"
	"rootlesskit/internal/sockio"
)

// world is a host with clients that are not the host: two network namespaces
// that a veth pair connects, in a user namespace of the test's. The launcher
// runs in the one, the test's sockets are in the other, which is the child's own.
type world struct {
	outside *nstest.Child
	host    int // a process in the host
	// patience is how long a client waits for its answer.
	patience time.Duration
}

// The addresses of the host, and of clients on its link and beyond.
const (
	host4, host6       = "198.51.100.1", "2001:db8:51::1"
	neighbour4         = "198.51.100.7"
	neighbour6         = "2001:db8:51::7"
	distant4, distant6 = "203.0.113.7", "2001:db8:1::7"
	clientPort         = 40000
	outsideScript      = `
ip link add eth0 type veth peer name eth0 netns $1
ip addr add 198.51.100.7/24 dev eth0
ip addr add 2001:db8:51::7/64 dev eth0 nodad
ip link set eth0 up
ip addr add 203.0.113.7/32 dev lo
ip addr add 2001:db8:1::7/128 dev lo nodad`
	hostScript = `
ip link set lo up
ip addr add 198.51.100.1/24 dev eth0
ip addr add 2001:db8:51::1/64 dev eth0 nodad
ip link set eth0 up
ip route add default via 198.51.100.7
ip -6 route add default via 2001:db8:51::7`
)

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{outside: nstest.NewChild(t), patience: time.Minute}
	w.host = w.startHost(t)
	for _, pid := range []int{w.outside.PID, w.host} {
		w.shell(t, pid, nstest.NoAddressDetection)
	}
	w.shell(t, w.outside.PID, outsideScript)
	w.shell(t, w.host, hostScript)
	for _, pid := range []int{w.outside.PID, w.host} {
		w.shell(t, pid, nstest.AwaitLinks+"await_links eth0")
	}
	return w
}

// startHost makes the host's namespace, which ends with the test.
func (w *world) startHost(t *testing.T) (pid int) {
	t.Helper()
	cmd := w.command(w.outside.PID, "unshare", "--net", "cat")
	hold, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		hold.Close() // ends cat
		_ = cmd.Wait()
	})
	namespace := func(pid int) string {
		link, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
		return link
	}
	poll(t, "the host's namespace", func() bool {
		now := namespace(cmd.Process.Pid)
		return now != "" && now != namespace(w.outside.PID) && now != namespace(os.Getpid())
	})
	return cmd.Process.Pid
}

// nsenter are the arguments of nsenter(1) for a network of the world.
func (w *world) nsenter(pid int) []string {
	return []string{fmt.Sprintf("--target=%d", w.outside.PID), "--user", "--preserve-credentials", "--mount",
		fmt.Sprintf("--net=/proc/%d/ns/net", pid)}
}

// command is a program in the network of a process.
func (w *world) command(pid int, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append(w.nsenter(pid), args...)...)
}

// shell runs a script in the network of a process. $1 is the host's.
func (w *world) shell(t *testing.T, pid int, script string) string {
	t.Helper()
	r := runCmd(t, w.command(pid, "sh", "-ec", "PATH=$PATH:/usr/sbin:/sbin\n"+script, "-", fmt.Sprint(w.host)))
	if r.code != 0 {
		t.Fatalf("%s\ncode %d: %s", script, r.code, r.stderr)
	}
	return r.stdout
}

// start runs rootlesskit in the host, with the servers of testdata/inside.sh.
func (w *world) start(t *testing.T, flags ...string) *kit {
	t.Helper()
	script := testdata(t, "inside.sh")
	command := []string{"sh", script}
	if slices.Contains(flags, "--detach-netns") {
		command = []string{"sh", "-c", `exec nsenter --net=$ROOTLESSKIT_STATE_DIR/netns sh "$0"`, script}
	}
	return w.run(t, 2, append(flags, command...)...)
}

// run runs rootlesskit in the host until that many peers.py are ready.
func (w *world) run(t *testing.T, peers int, args ...string) *kit {
	t.Helper()
	k := newKit(t, args...)
	k.Env = append(os.Environ(), "PEERS="+testdata(t, "peers.py"))
	if slices.Contains(args, "--net=none") {
		k.Env = append(k.Env, "ADDRESSES=yes")
	}
	w.launch(t, k)
	poll(t, "the servers", func() bool { return strings.Count(k.output.String(), "peers: ready") == peers })
	return k
}

// launch starts a rootlesskit in the host, and waits until its API answers.
func (w *world) launch(t *testing.T, k *kit) {
	t.Helper()
	w.launchIn(t, w.host, k)
}

// launchIn is launch in the network of a process.
func (w *world) launchIn(t *testing.T, pid int, k *kit) {
	t.Helper()
	k.under("nsenter", w.nsenter(pid)...).start(t)
	k.awaitAPI(t)
}

// testdata is the path of a file of testdata, for programs that run elsewhere.
func testdata(t *testing.T, name string) string {
	t.Helper()
	path := bin(filepath.Join("testdata", name))
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// ask sends a message from a client to a port of the host and returns the
// address that the server saw, or the error. The connection stays open.
func (w *world) ask(t *testing.T, proto string, from, to netip.AddrPort) string {
	t.Helper()
	c, err := w.dial(t, proto, from, to)
	if err != nil {
		return err.Error()
	}
	return w.exchange(c)
}

func (w *world) exchange(c net.Conn) string {
	if _, err := c.Write([]byte("who am I?")); err != nil {
		return err.Error()
	}
	_ = c.SetReadDeadline(time.Now().Add(w.patience))
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	if err != nil {
		return err.Error()
	}
	return string(buf[:n])
}

func (w *world) dial(t *testing.T, proto string, from, to netip.AddrPort) (net.Conn, error) {
	t.Helper()
	req := netns.SocketRequest{Family: unix.AF_INET, Type: unix.SOCK_STREAM, Count: 1}
	if to.Addr().Is6() {
		req.Family = unix.AF_INET6
	}
	if proto == "udp" {
		req.Type = unix.SOCK_DGRAM
	}
	fds, err := netns.Sockets(t.Context(), w.outside, req)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[0]), "client")
	defer f.Close()
	_ = unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if errno := sockio.Bind(fds[0], from); errno != 0 {
		t.Fatalf("bind %s: %v", from, errno)
	}
	if errno := sockio.Connect(fds[0], to); errno == unix.EINPROGRESS {
		if err := nstest.AwaitConnect(fds[0]); err != nil {
			return nil, err
		}
	} else if errno != 0 {
		return nil, errno
	}
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, nil
}
