package relay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/sockio"
)

// until polls for a state.
func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not reached in time: %s", what)
		}
	}
}

// forwardTo forwards with more than a target.
func forwardTo(t testing.TB, cfg TCPConfig) (*TCPPort, string) {
	t.Helper()
	e := newEngine(t)
	if cfg.Pool == nil {
		pool := plainPool(t, unix.AF_INET)
		cfg.Pool = func(int) *Pool { return pool }
	}
	fd, addr := listenFD(t)
	cfg.Listeners = []int{fd}
	p, err := e.ForwardTCP(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p, addr
}

func sendAndEcho(t testing.TB, c net.Conn, message string) {
	t.Helper()
	if _, err := io.WriteString(c, message); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(message))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != message {
		t.Fatalf("sent %q, got %q, %v", message, got, err)
	}
}

// A server that answers and resets, because it did not read all: the client gets
// the answer, and then the reset. The answer fits into the window that a connection
// begins with, 64 KiB: what the server's kernel has not sent by then goes with the
// reset, relay or none.
func TestWhatCameBeforeAResetArrives(t *testing.T) {
	answer := bytes.Repeat([]byte("no"), 30_000)
	_, addr := forward(t, serve(t, func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, 1))
		_, _ = c.Write(answer)
		_ = c.SetLinger(0)
	}))
	for range 20 {
		c := dial(t, addr)
		_, _ = c.Write(make([]byte, 100_000))
		got, err := io.ReadAll(c)
		if !bytes.Equal(got, answer) || !errors.Is(err, unix.ECONNRESET) {
			t.Fatalf("the client got %d bytes of %d, %v", len(got), len(answer), err)
		}
		c.Close()
	}
}

func TestClientThatEndsAtOnce(t *testing.T) {
	ends := make(chan error, 100)
	p, addr := forward(t, serve(t, func(c *net.TCPConn) {
		got, err := io.ReadAll(c)
		if len(got) > 0 {
			err = errors.New("unexpected bytes")
		}
		ends <- err
	}))
	for range cap(ends) {
		dial(t, addr).Close()
	}
	for range cap(ends) {
		if err := <-ends; err != nil {
			t.Fatalf("the server got %v", err)
		}
	}
	until(t, "no connection is left", func() bool { return p.Details().Active == 0 })
}

func TestPreludeComesFirst(t *testing.T) {
	target := netip.MustParseAddrPort(serve(t, echo))
	_, addr := forwardTo(t, TCPConfig{Router: routes{route: func(netip.AddrPort, netip.AddrPort) Route {
		return Route{Target: target, Prelude: []byte("PROXY ")}
	}}})
	for _, message := range []string{"", "hello"} {
		c := dial(t, addr)
		_, _ = io.WriteString(c, message)
		_ = c.CloseWrite()
		if got, err := io.ReadAll(c); string(got) != "PROXY "+message || err != nil {
			t.Errorf("the server got %q, %v", got, err)
		}
	}
}

func TestSourceIsWhatTheServerSees(t *testing.T) {
	source := netip.MustParseAddr("127.0.0.77")
	seen := make(chan string, 1)
	target := netip.MustParseAddrPort(serve(t, func(c *net.TCPConn) { seen <- c.RemoteAddr().String() }))
	var asked atomic.Pointer[netip.AddrPort]
	_, addr := forwardTo(t, TCPConfig{Router: routes{route: func(client, local netip.AddrPort) Route {
		asked.Store(&local)
		return Route{Target: target, Source: netip.AddrPortFrom(source, client.Port())}
	}}})
	c := dial(t, addr)
	want := netip.AddrPortFrom(source, netip.MustParseAddrPort(c.LocalAddr().String()).Port())
	if got := <-seen; got != want.String() {
		t.Errorf("the server saw %s, want %s", got, want)
	}
	if local := asked.Load().String(); local != addr {
		t.Errorf("the route was asked for %s, want %s", local, addr)
	}
}

// What the client has sent by the time that the first route fails goes to the
// server of the second.
func TestRerouteKeepsTheBytes(t *testing.T) {
	target := netip.MustParseAddrPort(serve(t, echo))
	_, refusing := listenFDClosed(t)
	foreign := netip.MustParseAddrPort("192.0.2.1:0")
	for name, first := range map[string]Route{
		"refused":        {Target: netip.MustParseAddrPort(refusing)},
		"source refused": {Target: target, Source: foreign},
	} {
		t.Run(name, func(t *testing.T) {
			first.Prelude = []byte("PROXY ")
			var failed atomic.Pointer[error]
			p, addr := forwardTo(t, TCPConfig{
				Router: routes{route: func(netip.AddrPort, netip.AddrPort) Route { return first },
					reroute: func(_, _ netip.AddrPort, err error) (Route, bool) {
						failed.Store(&err)
						return Route{Target: target}, true
					}},
			})
			c := dial(t, addr)
			_, _ = io.WriteString(c, "hello")
			_ = c.CloseWrite()
			if got, err := io.ReadAll(c); string(got) != "PROXY hello" || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
			if err := failed.Load(); err == nil || p.Details().Refused != 0 {
				t.Errorf("failed: %v, details %+v", err, p.Details())
			}
		})
	}
}

func TestResolveAnswersLater(t *testing.T) {
	target := netip.MustParseAddrPort(serve(t, echo))
	release := make(chan struct{})
	p, addr := forwardTo(t, TCPConfig{
		Router: routes{route: func(netip.AddrPort, netip.AddrPort) Route { return Route{} },
			resolve: func(netip.AddrPort, netip.AddrPort) Route {
				<-release
				return Route{Target: target}
			}},
	})
	waits := dial(t, addr)
	gone := dial(t, addr)
	until(t, "both are accepted", func() bool { return p.Details().Accepted == 2 })
	_ = gone.SetLinger(0)
	gone.Close()
	close(release)
	sendAndEcho(t, waits, "hello")
	waits.Close()
	until(t, "no connection is left", func() bool { return p.Details().Active == 0 })
}

func TestNoRouteResetsTheClient(t *testing.T) {
	p, addr := forwardTo(t, TCPConfig{Router: routes{route: func(netip.AddrPort, netip.AddrPort) Route { return Route{} }}})
	wantReset(t, addr)
	if d := p.Details(); d.Refused != 1 || d.LastError == "" {
		t.Errorf("details %+v", d)
	}
}

// A port is closed and opened again while clients use it as hard as they can.
func TestCloseUnderLoad(t *testing.T) {
	target := netip.MustParseAddrPort(serve(t, echo))
	e := newEngine(t)
	pool := plainPool(t, unix.AF_INET)
	fd, addr := listenFD(t)
	cfg := TCPConfig{
		Listeners: []int{fd},
		Pool:      func(int) *Pool { return pool },
		Router:    routes{route: func(netip.AddrPort, netip.AddrPort) Route { return Route{Target: target} }},
	}
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() { loadUntil(stop, addr) })
	}
	for range 20 {
		p, err := e.ForwardTCP(cfg)
		if err != nil {
			t.Fatal(err)
		}
		until(t, "traffic", func() bool { return p.Details().BytesOut > 1<<20 })
		_ = p.Close()
		if d := p.Details(); d.Active != 0 {
			t.Fatalf("after the end: %+v", d)
		}
		cfg.Listeners = []int{listenAt(t, addr)}
	}
	close(stop)
	unix.Close(cfg.Listeners[0])
	clients.Wait()
}

func loadUntil(stop <-chan struct{}, addr string) {
	buf := make([]byte, 64<<10)
	for {
		select {
		case <-stop:
			return
		default:
		}
		c, err := net.Dial("tcp", addr)
		if err != nil {
			continue
		}
		for range 50 {
			if _, err := c.Write(buf); err != nil {
				break
			}
			if _, err := io.ReadFull(c, buf); err != nil {
				break
			}
		}
		c.Close()
	}
}

// listenAt takes an address that was in use a moment ago.
func listenAt(t testing.TB, addr string) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	sockio.SetInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if errno := sockio.Bind(fd, netip.MustParseAddrPort(addr)); errno != 0 {
		t.Fatalf("binding %s again: %v", addr, errno)
	}
	if err := unix.Listen(fd, 4096); err != nil {
		t.Fatal(err)
	}
	return fd
}

// lines counts the log lines that are worth a user's attention.
type lines struct {
	slog.Handler
	n *atomic.Int64
}

func (h lines) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

func (h lines) Handle(context.Context, slog.Record) error { h.n.Add(1); return nil }

// Clients wait while descriptors are short, and are served as others leave.
func TestShortageOfDescriptors(t *testing.T) {
	const clients, room = 60, 15
	server, err := net.Listen("tcp4", "127.0.0.1:0") // accepts after the shortage
	if err != nil {
		t.Fatal(err)
	}
	fd, addr := listenFD(t)
	conns := make([]*net.TCPConn, clients)
	for i := range conns {
		conns[i] = dial(t, addr)
		_ = conns[i].SetLinger(0)
	}
	e := newEngine(t)
	pool := plainPool(t, unix.AF_INET)
	untilFull(t, pool)
	var warnings atomic.Int64
	restore := limitDescriptors(t, room)
	p, err := e.ForwardTCP(TCPConfig{
		Listeners: []int{fd}, Pool: func(int) *Pool { return pool },
		Router: routes{route: routeTo(netip.MustParseAddrPort(server.Addr().String()))},
		Log:    slog.New(lines{slog.DiscardHandler, &warnings}),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	until(t, "a shortage", func() bool { return p.Details().AcceptErrors > 0 })
	if d := p.Details(); d.Active == 0 || d.Active > 2*room {
		t.Errorf("in a shortage: %+v", d)
	}
	for _, c := range conns[:clients/2] {
		c.Close()
	}
	until(t, "others get their turn", func() bool { return p.Details().Accepted > clients/2 })
	restore()
	serveOn(t, server, echo)
	for _, c := range conns[clients/2:] {
		sendAndEcho(t, c, "x")
		c.Close()
	}
	until(t, "no connection is left", func() bool { return p.Details().Active == 0 })
	if n := warnings.Load(); n > 1 {
		t.Errorf("%d log lines for one shortage", n)
	}
}
