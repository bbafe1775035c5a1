package test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/nstest"
)

// TestFrozen stops all processes of a run, as a suspended machine or a frozen cgroup
// does. What comes in meanwhile is served afterwards; connections, ports and helpers are
// as they were.
func TestFrozen(t *testing.T) {
	for _, c := range []struct{ network, driver string }{
		{"gvisor-tap-vsock", "builtin"},
		{"gvisor-tap-vsock", "bypass4netns"},
		{"gvisor-tap-vsock", "gvisor-tap-vsock"},
		{"slirp4netns", "builtin"},
		{"slirp4netns", "slirp4netns"},
		{"pasta", "pesto"},
		{"none", "builtin"},
	} {
		t.Run(c.network+" "+c.driver, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			k := w.run(t, 1, "--net="+c.network, "--port-driver="+c.driver, "--disable-host-loopback",
				"--publish=0.0.0.0:21001:21001/tcp4", "--publish=0.0.0.0:21001:21001/udp4",
				"python3", "-I", testdata(t, "peers.py"), "tcp/0.0.0.0/21001", "udp/0.0.0.0/21001")
			to := endpoint(host4, 21001)
			served, seen := w.serveBoth(t, to)
			tree, ports := treeOf(k.Process.Pid), k.mustCtl(t, "list-ports")
			signalAll(t, tree, unix.SIGSTOP, true)
			late, err := w.dial(t, "tcp", endpoint(distant4, clientPort), to) // the kernel's queue takes it
			if err != nil {
				t.Fatal(err)
			}
			for _, conn := range []net.Conn{served["tcp"], served["udp"], late} {
				if _, err := conn.Write([]byte("anybody?")); err != nil {
					t.Fatal(err)
				}
			}
			signalAll(t, tree, unix.SIGCONT, false)
			served["new"], seen["new"] = late, late.LocalAddr().String()
			for name, conn := range served {
				w.stillServed(t, name, conn, seen[name])
			}
			if now := treeOf(k.Process.Pid); !slices.Equal(now, tree) {
				t.Errorf("the processes are %v, were %v: %s", now, tree, k.output)
			}
			if now := k.mustCtl(t, "list-ports"); now != ports {
				t.Errorf("the ports are\n%s, were\n%s", now, ports)
			}
		})
	}
}

// serveBoth has a client of each protocol, and what the server sees of it.
func (w *world) serveBoth(t *testing.T, to netip.AddrPort) (served map[string]net.Conn, seen map[string]string) {
	t.Helper()
	served, seen = map[string]net.Conn{}, map[string]string{}
	for _, proto := range []string{"tcp", "udp"} {
		conn, err := w.dial(t, proto, endpoint(neighbour4, clientPort), to)
		if err != nil {
			t.Fatal(err)
		}
		served[proto], seen[proto] = conn, w.exchange(conn)
		if _, err := netip.ParseAddrPort(seen[proto]); err != nil {
			t.Fatalf("%s: the server sees %q", proto, seen[proto])
		}
	}
	return served, seen
}

// stillServed reads an answer that is under way, and gets another one.
func (w *world) stillServed(t *testing.T, name string, conn net.Conn, seen string) {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(w.patience))
	b := make([]byte, 100)
	if n, err := conn.Read(b); err != nil || string(b[:n]) != seen {
		t.Errorf("%s: the answer to what was sent meanwhile is %q, %v", name, b[:n], err)
	}
	if got := w.exchange(conn); got != seen {
		t.Errorf("%s: the server sees %q afterwards, was %q", name, got, seen)
	}
}

// treeOf lists a process and all below it.
func treeOf(pid int) []int {
	all := append(nstest.Descendants(pid), pid)
	slices.Sort(all)
	return all
}

// signalAll sends a signal to all processes, and waits until they are stopped, or go on.
func signalAll(t *testing.T, pids []int, signal unix.Signal, stopped bool) {
	t.Helper()
	for _, pid := range pids {
		if err := unix.Kill(pid, signal); err != nil {
			t.Fatalf("%v to %d: %v", signal, pid, err)
		}
	}
	for _, pid := range pids {
		poll(t, fmt.Sprintf("%v at process %d", signal, pid), func() bool {
			stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			_, rest, _ := strings.Cut(string(stat), ") ")
			return strings.HasPrefix(rest, "T") == stopped
		})
	}
}
