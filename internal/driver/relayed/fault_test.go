package relayed_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/drivertest"
	"rootlesskit/internal/driver/relayed"
	"rootlesskit/internal/nstest"
	"rootlesskit/internal/wire"
)

func TestMain(m *testing.M) { nstest.Main(m, relayed.Handlers) }

func setup(t *testing.T) drivertest.Setup {
	sb, child := drivertest.Sandbox(t)
	ports := relayed.New("relayed", driver.FlagValues(relayed.Flags(), nil))
	return drivertest.Setup{Ports: ports, Sandbox: sb, Child: child}
}

const patience = time.Minute

// bench is a running driver with a server in the namespace.
type bench struct {
	drivertest.Setup
	spec   api.PortSpec
	server *net.TCPListener
}

// start runs the driver; change, if any, may replace what the driver sees.
func start(t *testing.T, change func(*driver.Sandbox)) *bench {
	t.Helper()
	b := &bench{Setup: setup(t)}
	if change != nil {
		change(&b.Sandbox)
	}
	drivertest.Start(t, b.Setup)
	b.server = b.Child.ListenTCP(t, "tcp4", "127.0.0.1:80")
	b.spec = api.PortSpec{Proto: "tcp4", ParentIP: "127.0.0.1", ParentPort: nstest.FreePort(t), ChildPort: 80}
	return b
}

func (b *bench) forward(t *testing.T) io.Closer {
	t.Helper()
	port, err := b.Ports.Forward(t.Context(), b.spec)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// echo serves until the test ends.
func (b *bench) echo(t *testing.T) {
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := b.server.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(patience))
				_, _ = io.Copy(struct{ io.Writer }{conn}, struct{ io.Reader }{conn})
			})
		}
	})
	t.Cleanup(func() {
		b.server.Close()
		running.Wait()
	})
}

func (b *bench) dial() (*net.TCPConn, error) {
	conn, err := net.DialTimeout("tcp4", fmt.Sprintf("127.0.0.1:%d", b.spec.ParentPort), patience)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn.(*net.TCPConn), nil
}

// exchange makes one echo on a connection of its own.
func (b *bench) exchange(message string) error {
	conn, err := b.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, message); err != nil {
		return err
	}
	got := make([]byte, len(message))
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if string(got) != message {
		return fmt.Errorf("got %q, want %q", got, message)
	}
	return nil
}

func details(port io.Closer) api.PortDetails { return port.(driver.Detailer).Details() }

// eventually waits for a condition of a port.
func eventually(t *testing.T, port io.Closer, what string, condition func(api.PortDetails) bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(details(port)); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: %+v", what, details(port))
		}
	}
}

func TestStartCostsNothing(t *testing.T) {
	s := setup(t)
	before := nstest.OpenFDs()
	drivertest.Start(t, s)
	if opened := nstest.LeakedFDs(before); len(opened) > 0 {
		t.Errorf("opened before there is a port: %v", opened)
	}
}

// TestBesideResets has clients that open and reset at once while others use the same
// port, who are served.
func TestBesideResets(t *testing.T) {
	b := start(t, nil)
	b.echo(t)
	port := b.forward(t)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			for j := range 50 {
				conn, err := b.dial()
				if err != nil {
					t.Errorf("burst %d: %v", i, err)
					return
				}
				if j%2 == 0 {
					_, _ = io.WriteString(conn, "to be lost")
				}
				_ = conn.SetLinger(0)
				conn.Close()
			}
		})
		wg.Go(func() {
			if err := b.exchange(fmt.Sprint("client ", i)); err != nil {
				t.Errorf("beside the burst: %v", err)
			}
		})
	}
	wg.Wait()
	eventually(t, port, "all connections end", func(d api.PortDetails) bool { return d.Active == 0 })
	if err := b.exchange("after the burst"); err != nil {
		t.Error(err)
	}
}

// TestRemoveUnderLoad removes and adds a port that clients never let alone.
func TestRemoveUnderLoad(t *testing.T) {
	b := start(t, nil)
	b.echo(t)
	var stop atomic.Bool
	var served atomic.Uint64
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for !stop.Load() {
				// Refused while there is no port, cut with it; served else.
				if b.exchange(fmt.Sprint("client ", i)) == nil {
					served.Add(1)
				}
			}
		})
	}
	for range 20 {
		port, had := b.forward(t), served.Load()
		for deadline := time.Now().Add(patience); served.Load() < had+5; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the port serves nobody: %+v", details(port))
			}
		}
		if err := port.Close(); err != nil {
			t.Error(err)
		}
		if d := details(port); d.Active != 0 {
			t.Errorf("closed with connections: %+v", d)
		}
	}
	stop.Store(true)
	wg.Wait()
	b.forward(t)
	if err := b.exchange("after the load"); err != nil {
		t.Error(err)
	}
}

// slowChild is a child that makes no sockets until it is opened.
type slowChild struct {
	wire.Caller
	open   chan struct{}
	failed atomic.Uint64
}

func (c *slowChild) Call(ctx context.Context, method string, req, reply any) ([]int, error) {
	select {
	case <-c.open:
		return c.Caller.Call(ctx, method, req, reply)
	default:
		c.failed.Add(1)
		return nil, errors.New("out of sockets")
	}
}

// TestExhaustedPool has clients come while the child makes no sockets: they
// wait and are served when it does.
func TestExhaustedPool(t *testing.T) {
	var child *slowChild
	b := start(t, func(sb *driver.Sandbox) {
		child = &slowChild{Caller: sb.Child, open: make(chan struct{})}
		sb.Child = child
	})
	b.echo(t)
	port := b.forward(t)
	var wg sync.WaitGroup
	const clients = 300 // more than a pool holds
	for i := range clients {
		wg.Go(func() {
			if err := b.exchange(fmt.Sprint("client ", i)); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	eventually(t, port, "the pool's failure", func(api.PortDetails) bool { return child.failed.Load() > 3 })
	if d := details(port); d.Accepted != 0 {
		t.Errorf("clients were accepted without sockets for them: %+v", d)
	}
	close(child.open)
	wg.Wait()
	if d := details(port); d.Refused != 0 {
		t.Errorf("clients were refused: %+v", d)
	}
}

// TestNoDescriptors has clients come while the process may open nothing more:
// they wait in the listener's queue, and the port survives.
func TestNoDescriptors(t *testing.T) {
	b := start(t, nil)
	port := b.forward(t)
	warm, err := b.dial() // so that all has started
	if err != nil {
		t.Fatal(err)
	}
	defer warm.Close()
	eventually(t, port, "the first client", func(d api.PortDetails) bool { return d.Accepted == 1 })
	clients := rawClients(t, 20)
	raiseLimit := nstest.LimitFDs(t, 0) // no descriptor more
	for _, fd := range clients {
		err := unix.Connect(fd, &unix.SockaddrInet4{Port: b.spec.ParentPort, Addr: [4]byte{127, 0, 0, 1}})
		if err == nil {
			_, err = unix.Write(fd, []byte("x"))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, port, "the shortage is noticed", func(d api.PortDetails) bool { return d.AcceptErrors > 0 && d.LastError != "" })
	raiseLimit()
	b.echo(t)
	for i, fd := range clients {
		got := make([]byte, 1)
		if n, err := readAnyway(fd, got); n != 1 || err != nil || got[0] != 'x' {
			t.Errorf("client %d: got %q, %v", i, got[:max(n, 0)], err)
		}
		_ = unix.Shutdown(fd, unix.SHUT_RDWR)
	}
	if d := details(port); d.Accepted != 21 || d.Refused != 0 {
		t.Errorf("clients were refused: %+v", d)
	}
}

// readAnyway reads. With a timeout, the kernel ends a wait at any signal, and Go's
// runtime sends them.
func readAnyway(fd int, b []byte) (n int, err error) {
	for {
		if n, err = unix.Read(fd, b); err != unix.EINTR {
			return n, err
		}
	}
}

// rawClients are blocking sockets, so that connecting takes no descriptor more.
func rawClients(t *testing.T, n int) []int {
	var fds []int
	receive := unix.NsecToTimeval(int64(patience))
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &receive)
		fds = append(fds, fd)
	}
	return fds
}

// The header names the client before its first byte, and before it sends any.
func TestProxyProtocol(t *testing.T) {
	b := start(t, nil)
	b.spec.ProxyProtocol = api.ProxyProtocolV2
	b.forward(t)
	client, err := b.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := b.server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	_ = server.SetDeadline(time.Now().Add(patience))
	const size = 16 + 12 // of a header with IPv4 addresses
	header := make([]byte, size)
	if _, err := io.ReadFull(server, header); err != nil {
		t.Fatal(err)
	}
	from := client.LocalAddr().(*net.TCPAddr).AddrPort()
	if port := binary.BigEndian.Uint16(header[24:]); !bytes.Equal(header[16:20], from.Addr().AsSlice()) || port != from.Port() {
		t.Errorf("the header % x does not name %s", header, from)
	}
	if _, err := io.WriteString(client, "hello"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(server, got); err != nil || string(got) != "hello" {
		t.Errorf("after the header: %q, %v", got, err)
	}
}
