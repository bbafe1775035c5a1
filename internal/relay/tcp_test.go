package relay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/sockio"
)

// plainPool makes sockets of the test's own namespace.
func plainPool(t testing.TB, family int) *Pool { return plainPoolOf(t, family, 16) }

func plainPoolOf(t testing.TB, family, size int) *Pool {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := NewPool(ctx, size, func(_ context.Context, n int) ([]int, error) {
		var fds []int
		for range n {
			fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				sockio.CloseAll(fds)
				return nil, err
			}
			fds = append(fds, fd)
		}
		return fds, nil
	}, nil)
	t.Cleanup(func() { cancel(); p.Wait() })
	return p
}

func untilFull(t testing.TB, pool *Pool) {
	t.Helper()
	until(t, "a full pool", func() bool {
		pool.mu.Lock()
		defer pool.mu.Unlock()
		return len(pool.ready) == pool.size
	})
}

// stateOf is how many sockets a pool has ready, and how many it wants to have.
func stateOf(pool *Pool) (ready, size int) {
	pool.mu.Lock()
	defer pool.mu.Unlock()
	return len(pool.ready), pool.size
}

func newEngine(t testing.TB) *Engine {
	t.Helper()
	e, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

// forward forwards a new port of 127.0.0.1 to target and returns its address.
func forward(t testing.TB, target string) (*TCPPort, string) {
	t.Helper()
	to := netip.MustParseAddrPort(target)
	e := newEngine(t)
	pool := plainPool(t, sockio.Family(to.Addr()))
	fd, addr := listenFD(t)
	p, err := e.ForwardTCP(TCPConfig{
		Listeners: []int{fd},
		Pool:      func(int) *Pool { return pool },
		Router:    routes{route: func(netip.AddrPort, netip.AddrPort) Route { return Route{Target: to} }},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p, addr
}

func listenFD(t testing.TB) (int, string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 4096); err != nil {
		t.Fatal(err)
	}
	return fd, sockio.LocalAddr(fd).String()
}

// serve accepts connections for f until the test ends.
func serve(t testing.TB, f func(*net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, l, f)
	return l.Addr().String()
}

func serveOn(t testing.TB, l net.Listener, f func(*net.TCPConn)) {
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { defer c.Close(); f(c.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
}

func dial(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return c.(*net.TCPConn)
}

func echo(c *net.TCPConn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if n > 0 {
			if _, err := c.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func TestHalfCloseBothWays(t *testing.T) {
	// The server answers after the client's end only, and then sends a lot.
	answer := bytes.Repeat([]byte("answer"), 1<<18)
	_, addr := forward(t, serve(t, func(c *net.TCPConn) {
		if got, err := io.ReadAll(c); string(got) != "question" || err != nil {
			t.Errorf("the server read %q, %v", got, err)
		}
		_, _ = c.Write(answer)
	}))
	c := dial(t, addr)
	_, _ = c.Write([]byte("question"))
	_ = c.CloseWrite()
	if got, err := io.ReadAll(c); !bytes.Equal(got, answer) || err != nil {
		t.Errorf("the client read %d bytes of %d, %v", len(got), len(answer), err)
	}
	// The server ends first; the client's bytes still arrive.
	received := make(chan []byte, 1)
	_, addr = forward(t, serve(t, func(c *net.TCPConn) {
		_ = c.CloseWrite()
		got, _ := io.ReadAll(c)
		received <- got
	}))
	c = dial(t, addr)
	if got, err := io.ReadAll(c); len(got) > 0 || err != nil {
		t.Errorf("the client read %q, %v", got, err)
	}
	_, _ = c.Write(answer)
	_ = c.CloseWrite()
	if got := <-received; !bytes.Equal(got, answer) {
		t.Errorf("the server read %d bytes of %d", len(got), len(answer))
	}
}

func TestResetIsPassedOn(t *testing.T) {
	serverErr, received := make(chan error, 1), make(chan struct{})
	_, addr := forward(t, serve(t, func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, 1))
		close(received)
		_, err := c.Read(make([]byte, 1))
		serverErr <- err
	}))
	c := dial(t, addr)
	_, _ = c.Write([]byte("x"))
	<-received
	_ = c.SetLinger(0)
	c.Close()
	if err := <-serverErr; !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the server got %v", err)
	}
	_, addr = forward(t, serve(t, func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, 1))
		_ = c.SetLinger(0)
	}))
	c = dial(t, addr)
	_, _ = c.Write([]byte("x"))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the client got %v", err)
	}
}

func TestRefusedResetsTheClient(t *testing.T) {
	_, free := listenFDClosed(t)
	p, addr := forward(t, free)
	for range 20 {
		wantReset(t, addr)
	}
	if d := p.Details(); d.Refused != 20 || d.Active != 0 || d.LastError == "" {
		t.Errorf("details %+v", d)
	}
}

func wantReset(t *testing.T, addr string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err == nil { // else the reset was faster than connect's return
		_, err = c.Read(make([]byte, 1))
		c.Close()
	}
	if !errors.Is(err, unix.ECONNRESET) {
		t.Fatalf("the client got %v", err)
	}
}

func listenFDClosed(t *testing.T) (int, string) {
	fd, addr := listenFD(t)
	unix.Close(fd)
	return -1, addr
}

func TestBulkIsUnharmed(t *testing.T) {
	_, addr := forward(t, serve(t, echo))
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			const size = 25 << 20
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			sent, got := sha256.New(), sha256.New()
			go func() {
				r := rand.NewChaCha8([32]byte{byte(i)})
				_, _ = io.CopyBuffer(io.MultiWriter(c, sent), io.LimitReader(struct{ io.Reader }{r}, size), make([]byte, 100_000+i))
				_ = c.(*net.TCPConn).CloseWrite()
			}()
			n, err := io.Copy(got, struct{ io.Reader }{c})
			if n != size || err != nil || !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
				t.Errorf("%d bytes came back, %v", n, err)
			}
		})
	}
	all.Wait()
}

func TestSlowReaderHurtsNobody(t *testing.T) {
	_, addr := forward(t, serve(t, echo))
	slow := dial(t, addr)
	go func() { _, _ = io.Copy(slow, rand.NewChaCha8([32]byte{})) }() // never reads
	c := dial(t, addr)
	buf := make([]byte, 100)
	for range 1000 {
		if _, err := c.Write(buf); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCloseCutsConnections(t *testing.T) {
	p, addr := forward(t, serve(t, echo))
	c := dial(t, addr)
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the client got %v", err)
	}
	if _, err := net.Dial("tcp", addr); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("the closed port: %v", err)
	}
	if d := p.Details(); d.Accepted != 1 || d.Active != 0 || d.BytesIn != 1 || d.BytesOut != 1 {
		t.Errorf("details %+v", d)
	}
}
