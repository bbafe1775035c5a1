package sourceip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/kernel"
	"rootlesskit/internal/netns"
	"rootlesskit/internal/nstest"
	"rootlesskit/internal/wire"
)

func TestMain(m *testing.M) { nstest.Main(m, Handlers, placeHandlers) }

// Places are the network namespaces of a test's child. The names of methods
// start with the place's, but for the child's own namespace.
const (
	own      = ""
	detached = "detached." // as with --detach-netns
	inner_   = "inner."    // a container's
	bare     = "bare."     // the child's own, without nf_tables and iptables
	// The child's own, with nf_tables of Linux 4.18.
	impatient = "impatient."
)

const runMethod = "test.run"

type runRequest struct {
	Script string   `json:"script"`
	Env    []string `json:"env"`
}

// placeHandlers answer for the namespaces beside the child's own. Those are
// made when they are first used.
func placeHandlers(ctx context.Context, ns *netns.Namespace) wire.Handlers {
	without := newAgent(ctx, ns, absent{})
	oldNFT := newNFT()
	oldNFT.impatient.Store(true)
	old := newAgent(ctx, ns, oldNFT)
	all := wire.Handlers{runMethod: runner(ns)}
	for name, h := range without.handlers() {
		all[bare+name] = h
	}
	for name, h := range old.handlers() {
		all[impatient+name] = h
	}
	for _, place := range []string{detached, inner_} {
		handlers := sync.OnceValues(func() (wire.Handlers, error) { return makePlace(ctx, place) })
		for _, name := range []string{runMethod, string(planMethod), string(probeMethod), "netns.sockets", "netns.tap", "netns.link"} {
			all[place+name] = func(ctx context.Context, msg wire.Message) (any, []int, error) {
				h, err := handlers()
				if err != nil {
					return nil, nil, err
				}
				return h[name](ctx, msg)
			}
		}
	}
	return all
}

func makePlace(ctx context.Context, name string) (wire.Handlers, error) {
	path := placePath(name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return nil, err
	}
	ns, err := netns.Create(path)
	if err != nil {
		return nil, err
	}
	if err := ns.LoopbackUp(); err != nil {
		return nil, err
	}
	all := ns.Handlers()
	all[runMethod] = runner(ns)
	for name, h := range Handlers(ctx, ns) {
		all[name] = h
	}
	return all, nil
}

func placePath(name string) string {
	return placePathOf(os.Getpid(), name)
}

func placePathOf(pid int, name string) string {
	return fmt.Sprintf("%s/sourceip-%d-%s", os.TempDir(), pid, strings.Trim(name, "."))
}

// runner runs shell scripts in a namespace. $INNER is the path of the inner
// one.
func runner(ns *netns.Namespace) wire.Handler {
	return func(_ context.Context, msg wire.Message) (any, []int, error) {
		var req runRequest
		if err := msg.Decode(&req); err != nil {
			return nil, nil, err
		}
		for _, kv := range req.Env {
			k, v, _ := strings.Cut(kv, "=")
			os.Setenv(k, v)
		}
		var out bytes.Buffer
		cmd := exec.Command("sh", "-ec", "PATH=$PATH:/usr/sbin:/sbin\n"+req.Script)
		cmd.Env = append(os.Environ(), "INNER="+placePath(inner_))
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := ns.Run(cmd); err != nil {
			return nil, nil, fmt.Errorf("%w: %s", err, out.Bytes())
		}
		return out.String(), nil, nil
	}
}

// absent is a packet filter that the kernel does not have.
type absent struct{}

func (absent) name() string     { return "nft" }
func (absent) usable() error    { return fmt.Errorf("nf_tables: %w", unix.EPROTONOSUPPORT) }
func (absent) ensure(int) error { return unix.EPROTONOSUPPORT }

// world is a child with a network, seen from one of its places.
type world struct {
	*nstest.Child
	place string
	log   *nstest.Buffer // of its policies
}

// Call implements wire.Caller for the place.
func (w *world) Call(ctx context.Context, method string, request, reply any) ([]int, error) {
	return w.Child.Call(ctx, w.place+method, request, reply)
}

// at is the same world seen from another place.
func (w *world) at(place string) *world { return &world{w.Child, place, w.log} }

// The network of the namespace, and a client of the outside.
var (
	tap4    = netip.MustParsePrefix("10.0.2.100/24")
	tap6    = netip.MustParsePrefix("fd00::100/64")
	second4 = netip.MustParsePrefix("10.0.2.101/24")
	client4 = netip.MustParseAddrPort("203.0.113.7:45678")
	client6 = netip.MustParseAddrPort("[2001:db8:1::7]:45678")
)

func bareWorld(t *testing.T) *world {
	w := &world{Child: nstest.NewChild(t), log: &nstest.Buffer{}}
	t.Cleanup(func() {
		for _, place := range []string{detached, inner_} {
			_ = os.Remove(placePathOf(w.PID, place))
		}
	})
	return w
}

// newWorld has a TAP with addresses and default routes of both families.
func newWorld(t *testing.T, place string) *world {
	t.Helper()
	w := bareWorld(t).at(place)
	w.addTAP(t, netns.LinkRequest{
		Addrs:    []netip.Prefix{tap4, tap6},
		Gateways: []netip.Addr{netip.MustParseAddr("10.0.2.2"), netip.MustParseAddr("fd00::2")},
	})
	return w
}

func (w *world) addTAP(t *testing.T, link netns.LinkRequest) {
	t.Helper()
	link.Name, link.MTU = "tap0", 1500
	tap, err := netns.OpenTAP(t.Context(), w, netns.TAPRequest{Name: link.Name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(tap) })
	if err := netns.Configure(t.Context(), w, link); err != nil {
		t.Fatal(err)
	}
	for _, a := range link.Addrs {
		w.awaitLocal(t, a.Addr().String())
	}
}

// awaitLocal waits for an address: the kernel takes up one of IPv6 a moment later.
func (w *world) awaitLocal(t *testing.T, address string) {
	t.Helper()
	eventually(t, address+" is local", func() bool {
		return strings.HasPrefix(w.run(t, "ip route get "+address), "local ")
	})
}

// run runs a shell script in the place and returns what it printed.
func (w *world) run(t *testing.T, script string, env ...string) string {
	t.Helper()
	var out string
	if _, err := w.Call(t.Context(), runMethod, runRequest{script, env}, &out); err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return out
}

// needsLegacy skips a test of the older iptables, whose modules only the host's root can
// load, where they are not: the program tells, with a lock of its own.
func (w *world) needsLegacy(t *testing.T) {
	t.Helper()
	lock := "XTABLES_LOCKFILE=" + filepath.Join(t.TempDir(), "lock")
	for _, try := range []string{"iptables-legacy -t mangle", "iptables-legacy -t nat", "iptables-legacy -t filter", "ip6tables-legacy -t mangle", "ip6tables-legacy -t filter"} {
		if out := w.run(t, lock+" "+try+" -S 2>&1 || true"); strings.Contains(out, "do you need to insmod") {
			t.Skip(kernel.IPTables.Lacks(errors.New(strings.TrimSpace(out))))
		}
	}
}

func (w *world) policy(t *testing.T, backend string) *Policy {
	return New(t.Context(), Config{
		Child: w, Backend: backend, IPv4: tap4.Addr(), IPv6: tap6.Addr(),
		Log: slog.New(slog.NewTextHandler(w.log, nil)),
	})
}

// said is what the policies have logged, but for that clients wait, which may happen on
// any machine that is busy.
func (w *world) said() string {
	lines := slices.Collect(strings.Lines(w.log.String()))
	return strings.Join(slices.DeleteFunc(lines, func(line string) bool { return strings.Contains(line, "clients wait") }), "")
}

// port is the port of a fresh policy that picks what is there.
func (w *world) port(t *testing.T, proto string, target string) *Port {
	return w.policy(t, "auto").Port(protoNumber(proto), netip.MustParseAddrPort(target), Default)
}

func protoNumber(proto string) int {
	if proto == "udp" {
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_TCP
}

// socket makes a socket of the place for an address.
func (w *world) socket(t *testing.T, proto string, ip netip.Addr, transparent bool) int {
	t.Helper()
	req := netns.SocketRequest{Family: unix.AF_INET, Type: unix.SOCK_STREAM, Count: 1, Transparent: transparent}
	if ip.Is6() {
		req.Family = unix.AF_INET6
	}
	if proto == "udp" {
		req.Type = unix.SOCK_DGRAM
	}
	fds, err := netns.Sockets(t.Context(), w, req)
	if err != nil {
		t.Fatal(err)
	}
	return fds[0]
}

// bind makes a server's socket at an address of the place. The child may not have closed
// its copy of the previous server's yet.
func (w *world) bind(t *testing.T, proto, address string) *os.File {
	t.Helper()
	addr := netip.MustParseAddrPort(address)
	fd := w.socket(t, proto, addr.Addr(), false)
	if proto == "udp" {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	eventually(t, address+" is free", func() bool {
		err := unix.Bind(fd, sockaddr(addr))
		if err != nil && err != unix.EADDRINUSE {
			t.Fatalf("bind %s: %v", address, err)
		}
		return err == nil
	})
	return os.NewFile(uintptr(fd), address)
}

var discard = slog.New(slog.DiscardHandler)

// callerFunc is a child that fails.
type callerFunc func() error

func (f callerFunc) Call(context.Context, string, any, any) ([]int, error) { return nil, f() }
