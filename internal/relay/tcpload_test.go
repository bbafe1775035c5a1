package relay

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/fdlimit"
	"rootlesskit/internal/nstest"
	"rootlesskit/internal/sockio"
)

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
	pool := poolOfSmallBuffers(t)
	serverFD, target := listenFD(t)
	smallBuffers(serverFD)
	t.Cleanup(func() { unix.Close(serverFD) })
	fd, addr := listenFD(t)
	// What the client sends has to fit while the relay does not read. Older kernels
	// offer half of the buffer, and no more for a loaded loopback.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4*size)
	p, err := e.ForwardTCP(TCPConfig{
		Listeners: []int{fd}, Pool: func(int) *Pool { return pool },
		Router: routes{route: routeTo(netip.MustParseAddrPort(target))},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	client := dial(t, addr)
	server := acceptOn(t, serverFD)
	until(t, "an idle connection", func() bool { return p.Details().Active == 1 })

	release := hold(t, e.loops[0]) // it ends before those of above, which wait for the loop
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

// hold has a loop do nothing until the returned function is called.
func hold(t *testing.T, l *loop) (release func()) {
	held, released := make(chan struct{}), make(chan struct{})
	release = sync.OnceFunc(func() { close(released) })
	t.Cleanup(release)
	go l.mail.Call(func() { close(held); <-released })
	<-held
	return release
}

// acceptOn accepts a connection.
func acceptOn(t *testing.T, listener int) (fd int) {
	t.Helper()
	until(t, "the server's connection", func() bool {
		var err error
		fd, _, err = unix.Accept4(listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		return err == nil
	})
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func smallBuffers(fd int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<10)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<10)
}

func poolOfSmallBuffers(t *testing.T) *Pool {
	ctx, cancel := context.WithCancel(context.Background())
	pool := NewPool(ctx, 1, func(context.Context, int) ([]int, error) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		smallBuffers(fd)
		return []int{fd}, err
	}, nil)
	t.Cleanup(func() { cancel(); pool.Wait() })
	return pool
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
	expectIdle(t, "connections")
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
