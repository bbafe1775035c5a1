package relay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/fdlimit"
	"rootlesskit/internal/nstest"
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

func TestSmallMessagesAreNotDelayed(t *testing.T) {
	_, addr := forward(t, serve(t, echo))
	c := dial(t, addr)
	var times []time.Duration
	for range 500 {
		start := time.Now()
		// Two small writes in a row are what Nagle's algorithm and delayed
		// acknowledgements hold back, by 40 to 200 ms.
		_, _ = io.WriteString(c, "a")
		_, _ = io.WriteString(c, "b")
		if _, err := io.ReadFull(c, make([]byte, 2)); err != nil {
			t.Fatal(err)
		}
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	if p99 := times[len(times)*99/100]; p99 > 30*time.Millisecond {
		t.Errorf("99%% of the exchanges took up to %v", p99)
	}
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
	target := netip.MustParseAddrPort(server.Addr().String())
	fd, addr := listenFD(t)
	var conns []*net.TCPConn
	for range clients {
		c := dial(t, addr)
		_ = c.SetLinger(0)
		conns = append(conns, c)
	}
	e := newEngine(t)
	pool := plainPool(t, unix.AF_INET)
	untilFull(t, pool)
	var warnings atomic.Int64
	restore := limitDescriptors(t, room)
	p, err := e.ForwardTCP(TCPConfig{
		Listeners: []int{fd},
		Pool:      func(int) *Pool { return pool },
		Router:    routes{route: func(netip.AddrPort, netip.AddrPort) Route { return Route{Target: target} }},
		Log:       slog.New(lines{slog.DiscardHandler, &warnings}),
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

// A pool that was filled before the limit was lowered gives its sockets up: they
// alone must not keep connections out for ever. The last descriptors are not for
// connections.
func TestLimitLoweredToThePool(t *testing.T) {
	const clients, pooled = 20, 100
	target := serve(t, func(c *net.TCPConn) { c.Close() }) // what it has open is not counted
	fd, addr := listenFD(t)
	var conns []*net.TCPConn
	for range clients {
		conns = append(conns, dial(t, addr))
	}
	e := newEngine(t)
	pool := plainPoolOf(t, unix.AF_INET, pooled)
	pool.mu.Lock()
	pool.size = pool.most // it was busy
	pool.mu.Unlock()
	pool.hint()
	untilFull(t, pool)
	limitDescriptors(t, 0)
	p, err := e.ForwardTCP(TCPConfig{
		Listeners: []int{fd},
		Pool:      func(int) *Pool { return pool },
		Router: routes{route: func(netip.AddrPort, netip.AddrPort) Route {
			return Route{Target: netip.MustParseAddrPort(target)}
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	until(t, "all are accepted", func() bool { return p.Details().Accepted == clients })
	if d := p.Details(); d.AcceptErrors == 0 {
		t.Errorf("there was no shortage: %+v", d)
	}
	for _, c := range conns {
		c.Close()
	}
}

// A sink that takes a part of what was read takes the rest once it can, though
// the source has no more to say.
func TestPartOfAWrite(t *testing.T) {
	const size = 100 << 10
	e, err := New(Options{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	small := func(fd int) {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<10)
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<10)
	}
	ctx, cancel := context.WithCancel(context.Background())
	pool := NewPool(ctx, 1, func(context.Context, int) ([]int, error) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		small(fd)
		return []int{fd}, err
	}, nil)
	t.Cleanup(func() { cancel(); pool.Wait() })
	serverFD, target := listenFD(t)
	small(serverFD)
	t.Cleanup(func() { unix.Close(serverFD) })
	fd, addr := listenFD(t)
	// What the client sends has to fit while the relay does not read. Older kernels
	// offer half of the buffer, and no more for a loaded loopback.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4*size)
	p, err := e.ForwardTCP(TCPConfig{
		Listeners: []int{fd},
		Pool:      func(int) *Pool { return pool },
		Router: routes{route: func(netip.AddrPort, netip.AddrPort) Route {
			return Route{Target: netip.MustParseAddrPort(target)}
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	client := dial(t, addr)
	server := -1
	until(t, "the server's connection", func() bool {
		server, _, err = unix.Accept4(serverFD, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		return err == nil
	})
	t.Cleanup(func() { unix.Close(server) })
	until(t, "an idle connection", func() bool { return p.Details().Active == 1 })

	held, released := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(released) })
	t.Cleanup(release) // before those of above, which wait for the loop
	go e.loops[0].call(func() { close(held); <-released })
	<-held
	if _, err := client.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	until(t, "all is with the relay", func() bool { return outQueue(t, client) == 0 })
	release()
	until(t, "a part is written", func() bool {
		n, _, err := unix.Recvfrom(server, make([]byte, 1), unix.MSG_PEEK)
		return err == nil && n == 1
	})
	do(t, e.loops[0], func() {}) // its turn is over
	got := 0
	until(t, "the rest", func() bool {
		n, _ := unix.Read(server, make([]byte, size))
		got += max(n, 0)
		return got == size
	})
}

// outQueue is how much the peer has not acknowledged.
func outQueue(t *testing.T, c *net.TCPConn) (n int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ) })
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// limitDescriptors leaves the process room for n more.
func limitDescriptors(t testing.TB, n int) (restore func()) {
	t.Helper()
	return nstest.LimitFDs(t, len(nstest.OpenFDs())+n)
}

// descriptors counts those that are open, pipes apart.
func descriptors() (others, pipes int) {
	for _, target := range nstest.OpenFDs() {
		if strings.HasPrefix(target, "pipe:") {
			pipes++
		} else {
			others++
		}
	}
	return others, pipes
}

// Thousands of connections that are opened and reset leave nothing behind.
func TestBurstOfResets(t *testing.T) {
	p, addr := forward(t, serve(t, echo))
	sendAndEcho(t, dial(t, addr), "warm")
	pool := p.cfg.Pool(unix.AF_INET)
	ready, _ := stateOf(pool)
	before, pipesBefore := descriptors()
	to := netip.MustParseAddrPort(addr)
	const burst = 3000
	for i := range burst {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if errno := sockio.Connect(fd, to); errno != 0 {
			t.Fatalf("connecting: %v", errno)
		}
		if i%2 == 0 {
			_, _ = sockio.Send(fd, []byte("x"))
		}
		sockio.Reset(fd)
		sockio.Close(fd)
	}
	until(t, "all are gone", func() bool { d := p.Details(); return d.Active == 1 && d.Accepted > burst*9/10 })
	// A loop keeps some pipes at hand, of which each has two ends.
	atHand := 2 * pipesAtHand * len(p.parts)
	until(t, "descriptors at the baseline", func() bool {
		now, pipes := descriptors()
		_, size := stateOf(pool) // it is filled, and grows with the demand
		return now <= before+1+size-ready && pipes <= pipesBefore+atHand
	})
}

// Idle connections take little memory, no pipe, and no CPU.
func TestIdleConnections(t *testing.T) {
	n := min(10_000, (raiseDescriptorLimit(t)-200)/4)
	if n < 10_000 {
		t.Logf("%d connections: the hard limit of descriptors allows no more", n)
	}
	listener, target := listenFD(t)
	defer unix.Close(listener)
	p, addr := forward(t, target)
	to := netip.MustParseAddrPort(addr)
	heap := liveHeap()
	var fds []int
	defer func() { sockio.CloseAll(fds) }()
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
		if errno := sockio.Connect(fd, to); errno != 0 {
			t.Fatal(errno)
		}
		var server int
		until(t, "the server's side", func() bool {
			var errno unix.Errno
			server, _, errno = sockio.Accept(listener)
			return errno == 0
		})
		fds = append(fds, server)
		roundTrip(t, fd, server)
	}
	if each := (liveHeap() - heap) / int64(n); each > 1024 {
		t.Errorf("an idle connection takes %d bytes", each)
	}
	before := cpuTime(t)
	time.Sleep(200 * time.Millisecond)
	if used := cpuTime(t) - before; used > 20*time.Millisecond {
		t.Errorf("%d idle connections took %v of CPU in 200ms", n, used)
	}
	if active := p.Details().Active; active != uint64(n) {
		t.Errorf("%d of %d connections", active, n)
	}
}

// raiseDescriptorLimit raises the limit as far as it goes, for the test.
func raiseDescriptorLimit(t *testing.T) int {
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	raised := before
	raised.Cur = raised.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &raised); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &before) })
	return fdlimit.Get()
}

// roundTrip sends a byte each way; the sockets of the server do not block.
func roundTrip(t testing.TB, client, server int) {
	t.Helper()
	buf := []byte("x")
	_, _ = sockio.Send(client, buf)
	until(t, "a byte", func() bool { n, _ := sockio.Read(server, buf); return n == 1 })
	_, _ = sockio.Send(server, buf)
	if n, err := unix.Read(client, buf); n != 1 {
		t.Fatalf("the client got %v", err)
	}
}

func liveHeap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// A stream that stops and goes on gives its pipe back each time, and a client
// that does not read does not keep one from others either.
func TestStreamsShareThePipes(t *testing.T) {
	_, addr := forward(t, serve(t, echo))
	for range 3 * pipesMax {
		slow := dial(t, addr)
		go func() { _, _ = io.Copy(slow, rand.NewChaCha8([32]byte{})) }() // never reads
	}
	c := dial(t, addr)
	block := bytes.Repeat([]byte("block"), 100_000)
	for range 20 {
		got := make([]byte, len(block))
		done := make(chan error, 1)
		go func() { _, err := io.ReadFull(c, got); done <- err }()
		if _, err := c.Write(block); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil || !bytes.Equal(got, block) {
			t.Fatalf("a block came back wrong: %v", err)
		}
	}
}
