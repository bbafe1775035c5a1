package test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
)

// bridged is a container on a network of the launcher's namespace, as a container
// tool makes it, whose ports the tool has asked bypass4netnsd for.
type bridged struct {
	*world
	*kit
	daemon, bundle string
}

// bridgeScript gives a container a network, and runs it there. $1 is the socket of
// the container, $2 the bundle, $3 are options of runc.
const bridgeScript = `
while [ ! -e "$1" ]; do sleep 0.05; done
nsenter --net="$ROOTLESSKIT_STATE_DIR/netns" sh -ec '
PATH=$PATH:/usr/sbin:/sbin
unshare --net sh -c "while [ -e $1 ]; do sleep 0.2; done" & c=$!
while [ "$(readlink /proc/$c/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
ip link add br0 type veth peer name eth0 netns $c
ip addr add 10.9.0.1/24 dev br0
ip link set br0 up
exec nsenter --net=/proc/$c/ns/net sh -ec "
ip link set lo up
ip addr add 10.9.0.2/24 dev eth0
ip link set eth0 up
ip route add default via 10.9.0.1
exec runc --root $2/run run $3 -b $2 c1"' - "$@"
exec sleep 100`

// startBridged runs a container that serves port 80, published as 8080.
func startBridged(t *testing.T, runcOptions string, flags ...string) *bridged {
	t.Helper()
	tmp := t.TempDir()
	b := &bridged{world: newWorld(t), daemon: filepath.Join(tmp, "d.sock")}
	listener := filepath.Join(tmp, "c.sock")
	b.bundle = bundleWithoutNetwork(t, bundle(t, true, listener, ""))
	replaceInConfig(t, b.bundle, `"serve"`, `"answer"`)
	args := append([]string{"--net=gvisor-tap-vsock", "--port-driver=bypass4netns", "--detach-netns", "--bypass4netnsd-socket=" + b.daemon}, flags...)
	b.kit = newKit(t, append(args, "sh", "-c", bridgeScript, "-", listener, b.bundle, runcOptions)...)
	b.launch(t, b.kit)
	awaitSocket(t, b.daemon)
	spec := fmt.Sprintf(`{"id":"c1","socketPath":%q,"portMapping":[{"protos":["tcp","udp"],"parentIP":"0.0.0.0","parentPort":8080,"childPort":80}]}`, listener)
	if got := b.rest(t, b.daemon, "POST", "/v1/bypass", spec); !strings.Contains(got, `"pid":`) {
		t.Fatal(got)
	}
	poll(t, "the container", func() bool {
		answer, _ := b.get(t, at4, 0)
		return strings.Contains(answer, "<")
	})
	return b
}

// awaitSocket waits until somebody listens on a Unix socket, which may be there from
// before.
func awaitSocket(t *testing.T, path string) {
	t.Helper()
	poll(t, path, func() bool {
		c, err := net.Dial("unix", path)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// listed are the ports in the list of all.
func (b *bridged) listed(t *testing.T) (list []api.PortStatus) {
	t.Helper()
	for line := range strings.Lines(b.mustCtl(t, "list-ports", "--wide", "--json")) {
		var p api.PortStatus
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	return list
}

// exec runs the tool in the container.
func (b *bridged) exec(t *testing.T) {
	t.Helper()
	r := runCmd(t, b.command(b.host, "nsenter", "--target="+b.childPID(t), "--user", "--preserve-credentials", "--mount",
		"runc", "--root", b.bundle+"/run", "exec", "c1", "/tool", "true"))
	if r.code != 0 {
		t.Fatalf("runc exec: %s", r.stderr)
	}
}

// TestBypassBridged has a container that cannot be native, and one that is: both see
// the client's own address, in the list of ports are its, and processes that are
// executed in it change nothing.
func TestBypassBridged(t *testing.T) {
	for flag, want := range map[string]string{
		"--disable-host-loopback":       api.PortRelay,
		"--disable-host-loopback=false": api.PortNative,
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			b := startBridged(t, "", flag)
			check := func() {
				t.Helper()
				if answer, _ := b.get(t, at4, 0); !strings.Contains(answer, "<"+neighbour4+":") {
					t.Errorf("a client is seen as %q", answer)
				}
				from := netip.AddrPortFrom(netip.MustParseAddr(neighbour4), 0)
				if seen := b.ask(t, "udp", from, at4); !strings.Contains(seen, "<"+neighbour4+":") {
					t.Errorf("a client of UDP is seen as %q", seen)
				}
			}
			check()
			for range 3 {
				b.exec(t)
			}
			check()
			list := b.listed(t)
			if len(list) != 2 || list[0].Spec.Proto != "tcp" || list[0].Spec.ParentPort != 8080 || list[0].Details.State != want || list[1].Spec.Proto != "udp" {
				t.Errorf("the list of ports is %+v", list)
			}
			if said := b.output.String(); strings.Contains(said, "a container") && strings.Contains(said, "level=WARN") {
				t.Error(said)
			}
			b.rest(t, b.daemon, "DELETE", "/v1/bypass/c1", "")
			if list := b.listed(t); len(list) != 0 {
				t.Errorf("after the end, the list of ports is %+v", list)
			}
		})
	}
}

// TestBypassContainerOutlivesTheLauncher: its native port is closed with the
// launcher all the same, and the next launcher takes the same socket.
func TestBypassContainerOutlivesTheLauncher(t *testing.T) {
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			pidFile := filepath.Join(t.TempDir(), "pid")
			b := startBridged(t, "-d --pid-file "+pidFile, "--disable-host-loopback=false")
			var pid int
			poll(t, "the file with the container's PID", func() bool { // which serves before
				raw, err := os.ReadFile(pidFile)
				if err == nil {
					pid, err = strconv.Atoi(string(raw))
				}
				return err == nil
			})
			t.Cleanup(func() { _ = unix.Kill(pid, unix.SIGKILL) })
			poll(t, "a native port", func() bool {
				return strings.Contains(b.rest(t, b.daemon, "GET", "/v1/bypass", ""), `"state":"native"`)
			})
			if err := b.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			b.await(t)
			poll(t, "the end of the port", func() bool {
				_, err := b.dial(t, "tcp", netip.AddrPortFrom(netip.MustParseAddr(neighbour4), 0), at4)
				return err == unix.ECONNREFUSED
			})
			next := newKit(t, "--net=gvisor-tap-vsock", "--port-driver=bypass4netns", "--detach-netns", "--bypass4netnsd-socket="+b.daemon, "sleep", "100")
			b.launch(t, next)
			awaitSocket(t, b.daemon)
			if got := b.rest(t, b.daemon, "GET", "/v1/bypass", ""); got != "[]\n" {
				t.Error(got)
			}
		})
	}
}
