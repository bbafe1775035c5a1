package sourceip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rootlesskit/internal/netns"
	"rootlesskit/internal/nstest"
)

// eventually polls a condition.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timeout: %s", what)
		}
	}
}

// openMarked opens connections that rely on marks.
func openMarked(t *testing.T, w *world, backend string) map[string]net.Conn {
	t.Helper()
	// What goes astray is sent, not queued for a neighbour that never answers.
	w.run(t, "ip neigh add 10.0.2.2 lladdr 02:00:00:00:00:02 dev tap0; ip neigh add fd00::2 lladdr 02:00:00:00:00:02 dev tap0")
	conns := map[string]net.Conn{}
	policy := w.policy(t, backend)
	for _, proto := range protos {
		for listen, client := range map[string]struct{ addr, want string }{
			"10.0.2.100:1001":  {"127.0.0.1:1001", client4.String()},
			"[fd00::100]:1002": {"[::1]:1002", client6.String()},
		} {
			w.serve(t, proto, listen)
			p := policy.Port(protoNumber(proto), addrPort(client.addr), Default)
			c, err := w.dial(t, proto, p.Resolve(t.Context(), addrPort(client.want)))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := ask(c); got != client.want {
				t.Fatalf("%s %s: got %q, %v; want %s", proto, listen, got, err, client.want)
			}
			conns[proto+" "+listen] = c
		}
	}
	return conns
}

// Nobody asks for a plan after the flush, so it is the watch that repairs.
func TestFlushIsRepaired(t *testing.T) {
	for _, place := range []string{own, detached} {
		for name, flush := range map[string]string{
			"nft flush ruleset": "nft flush ruleset",
			"nft delete table":  "nft delete table ip rootlesskit; nft delete table ip6 rootlesskit",
			"nft flush table":   "nft flush table ip rootlesskit; nft flush table ip6 rootlesskit",
			"nft reload":        "nft flush ruleset; nft add table ip mine; nft add chain ip mine x",
			"ip rule flush":     "ip rule flush; ip -6 rule flush; ip rule add pref 32766 lookup main; ip -6 rule add pref 32766 lookup main",
		} {
			t.Run(place+name, func(t *testing.T) {
				w := newWorld(t, place)
				conns := openMarked(t, w, "auto")
				w.run(t, flush)
				start := time.Now()
				for name, c := range conns {
					eventually(t, name+" works again", func() bool { return answers(c) })
				}
				t.Logf("repaired within %v", time.Since(start))
			})
		}
	}
}

func answers(c net.Conn) bool {
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := c.Write([]byte("still there?")); err != nil {
		return false
	}
	_, err := c.Read(make([]byte, 128))
	return err == nil
}

// The table is not made again when it is complete: its rules keep their
// handles through changes of others.
func TestRepairLeavesACompleteTable(t *testing.T) {
	w := newWorld(t, own)
	openMarked(t, w, "nft")
	list := func() string { return w.run(t, "nft -a list table ip rootlesskit") }
	before := list()
	for i := range 5 {
		w.run(t, fmt.Sprintf("nft add table ip other%d", i))
	}
	// A repair is over within settle of the first change; this one shows that
	// the watch is awake.
	w.run(t, "nft delete table ip6 rootlesskit")
	eventually(t, "the other table is back", func() bool {
		return strings.Contains(w.run(t, "nft list tables"), "ip6 rootlesskit")
	})
	if after := list(); after != before {
		t.Errorf("the table was made again:\n%s\nbefore:\n%s", after, before)
	}
}

func TestOthersMarksAreKept(t *testing.T) {
	w := newWorld(t, own)
	w.run(t, `nft -f - <<RULES
table ip mine {
	chain output {
		type route hook output priority mangle
		ct mark set ct mark | 0x42
		meta mark set 0x80
	}
	chain late {
		type filter hook output priority filter
		meta mark 0x10000080 ct mark 0x10000042 counter
	}
}
RULES`)
	openMarked(t, w, "nft")
	if out := w.run(t, "nft list chain ip mine late"); strings.Contains(out, "packets 0 ") {
		t.Errorf("the replies have lost the marks of others:\n%s", out)
	}
}

// The programs of both iptables; the older one takes effect without nf_tables.
func TestIptables(t *testing.T) {
	for _, variant := range []string{"nft", "legacy"} {
		t.Run(variant, func(t *testing.T) {
			w := newWorld(t, own)
			if variant == "legacy" {
				w.needsLegacy(t)
			}
			w.run(t, "true", "PATH="+iptablesPath(t, variant))
			conns := openMarked(t, w, "iptables")
			if out := w.run(t, "nft list tables"); strings.Contains(out, "rootlesskit") {
				t.Errorf("nf_tables was used as well:\n%s", out)
			}
			for _, p := range []string{"iptables", "ip6tables"} {
				lock := "XTABLES_LOCKFILE=" + filepath.Join(t.TempDir(), "lock")
				if out := w.run(t, lock+" "+p+"-"+variant+" -t mangle -S"); !strings.Contains(out, "ROOTLESSKIT-OUTPUT") {
					t.Errorf("%s has no chain of ours:\n%s", p, out)
				}
			}
			if variant == "legacy" {
				return // its changes are not told, see recheck
			}
			w.run(t, "iptables -t mangle -F; ip6tables -t mangle -F")
			for name, c := range conns {
				eventually(t, name+" works again", func() bool { return answers(c) })
			}
		})
	}
}

// iptablesPath is a PATH with one variant of iptables in front.
func iptablesPath(t *testing.T, variant string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"iptables", "iptables-restore", "ip6tables", "ip6tables-restore"} {
		base, restore := strings.CutSuffix(name, "-restore")
		target := "/usr/sbin/" + base + "-" + variant
		if restore {
			target += "-restore"
		}
		if _, err := os.Stat(target); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir + ":/usr/sbin:" + os.Getenv("PATH")
}

// What the watch does not see, the next plan repairs after a while.
func TestLayerIsCheckedAgain(t *testing.T) {
	made := 0
	var l layer
	l.checked = time.Now().Add(-recheck - time.Second)
	for range 3 {
		if err := l.ensure(func() error { made++; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if made != 1 {
		t.Errorf("made %d times, want 1", made)
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	a := newAgent(t.Context(), netns.Own(), absent{})
	if err := a.startWatch(ctx); err != nil {
		t.Fatal(err)
	}
	if len(netlinkSockets()) == 0 {
		t.Error("there is no watch")
	}
	cancel()
	eventually(t, "the watch's sockets are closed", func() bool { return len(netlinkSockets()) == 0 })
}

// netlinkSockets lists the process's sockets of netlink, by inode.
func netlinkSockets() (found []string) {
	table, _ := os.ReadFile("/proc/self/net/netlink")
	for _, target := range nstest.OpenFDs() {
		inode, isSocket := strings.CutPrefix(target, "socket:[")
		if isSocket && strings.Contains(string(table), " "+strings.TrimSuffix(inode, "]")) {
			found = append(found, inode)
		}
	}
	return found
}

func TestUnknownBackend(t *testing.T) {
	name, problem := newAgent(t.Context(), netns.Own(), absent{}).probe("ipfw")
	if name != "none" || !strings.Contains(problem, "ipfw") {
		t.Errorf("%s, %s", name, problem)
	}
}

// failing is a backend that fails for a while.
type failing struct {
	absent
	failures, calls atomic.Int32
}

func (f *failing) usable() error { return nil }

func (f *failing) ensure(int) error {
	f.calls.Add(1)
	if f.failures.Add(-1) >= 0 {
		return errors.New("the kernel is busy")
	}
	return nil
}

func TestFailedRepairIsTriedAgain(t *testing.T) {
	f := &failing{}
	a := newAgent(t.Context(), netns.Own(), f)
	a.mu.Lock()
	if err := a.makeMarks(0, "auto"); err != nil {
		t.Fatal(err)
	}
	a.mu.Unlock()
	f.failures.Store(2)
	changed := make(chan struct{}, 1)
	changed <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	var loop sync.WaitGroup
	loop.Go(func() { a.repairOn(ctx, changed) })
	eventually(t, "the repair succeeds", func() bool { return f.calls.Load() == 4 })
	cancel()
	loop.Wait()
}

// TestFirstUseReplacesNothing: the kernel takes long to delete a table, which the first
// client would wait for. Nor do clients of one family wait for what those of the other
// need. The kernel numbers tables as they are made, those of a namespace or, in Linux
// 5.10, of all, and takes one more number for each module that it must load on the way.
func TestFirstUseReplacesNothing(t *testing.T) {
	newWorld(t, own).firstClients(t, func(string) {}) // which loads the modules
	w := newWorld(t, own)
	made := w.run(t, "nft add table ip before; nft -j list tables")
	_, handle, _ := strings.Cut(made, `"handle": `)
	number, err := strconv.Atoi(strings.TrimRight(handle, "}]\n"))
	if err != nil {
		t.Fatalf("no number in %s", made)
	}
	all := 1
	w.firstClients(t, func(family string) {
		number, all = number+1, all+1
		tables := w.run(t, "nft -j list tables")
		want := fmt.Sprintf(`{"family": "%s", "name": "rootlesskit", "handle": %d}`, family, number)
		if n := strings.Count(tables, `"handle"`); !strings.Contains(tables, want) || n != all {
			t.Errorf("after the client of %s the tables are %s", family, tables)
		}
	})
}

// firstClients are a client of each family, whose servers need the marks.
func (w *world) firstClients(t *testing.T, after func(family string)) {
	t.Helper()
	policy := w.policy(t, "nft")
	w.serve(t, "udp", "0.0.0.0:1001")
	w.expectReal(t, "udp", policy.Port(protoNumber("udp"), addrPort("127.0.0.1:1001"), Default), client4)
	after("ip")
	w.serve(t, "udp", "[::]:1002")
	w.expectReal(t, "udp", policy.Port(protoNumber("udp"), addrPort("[::1]:1002"), Default), client6)
	after("ip6")
}
