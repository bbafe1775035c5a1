package sourceip

import (
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/nstest"
)

// serve runs a server that answers everything with the address of the peer.
func (w *world) serve(t *testing.T, proto, address string) {
	t.Helper()
	if proto == "udp" {
		nstest.AnswerUDP(t, w.listenUDP(t, address))
		return
	}
	f := w.bind(t, proto, address)
	defer f.Close()
	serveTCP(t, f)
}

func (w *world) listenUDP(t *testing.T, address string) net.PacketConn {
	t.Helper()
	f := w.bind(t, "udp", address)
	defer f.Close()
	pc, err := net.FilePacketConn(f)
	if err != nil {
		t.Fatal(err)
	}
	_ = pc.SetReadDeadline(time.Now().Add(time.Minute))
	t.Cleanup(func() { pc.Close() })
	return pc
}

func serveTCP(t *testing.T, f *os.File) {
	t.Helper()
	if err := unix.Listen(int(f.Fd()), 16); err != nil {
		t.Fatal(err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	nstest.AnswerTCP(t, l)
}

// dial goes a route, as the relay does.
func (w *world) dial(t *testing.T, proto string, r Route) (net.Conn, error) {
	t.Helper()
	if !r.Target.IsValid() {
		t.Fatal("there is no way to the server")
	}
	fd := w.socket(t, proto, r.Target.Addr(), true)
	f := os.NewFile(uintptr(fd), "client")
	defer f.Close()
	if r.Source.Port() != 0 {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if r.Source.IsValid() {
		if err := unix.Bind(fd, sockaddr(r.Source)); err != nil {
			return nil, os.NewSyscallError("bind", err)
		}
	}
	err := unix.Connect(fd, sockaddr(r.Target))
	if err == unix.EINPROGRESS {
		err = nstest.AwaitConnect(fd)
	}
	if err != nil {
		return nil, os.NewSyscallError("connect", err)
	}
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, nil
}

// ask sends a message and returns the answer.
func ask(c net.Conn) (string, error) {
	if _, err := c.Write([]byte("who am I?")); err != nil {
		return "", err
	}
	_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
	buf := make([]byte, 128)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

// seen returns the address that a server sees of a client that goes a route.
func (w *world) seen(t *testing.T, proto string, r Route) string {
	t.Helper()
	c, err := w.dial(t, proto, r)
	if err != nil {
		t.Fatalf("route %v: %v", r, err)
	}
	answer, err := ask(c)
	if err != nil {
		t.Fatalf("route %v: no answer: %v", r, err)
	}
	return answer
}

// expectReal checks that the server of a port sees a client's own address.
func (w *world) expectReal(t *testing.T, proto string, p *Port, client netip.AddrPort) {
	t.Helper()
	if got := w.seen(t, proto, p.Resolve(t.Context(), client)); got != client.String() {
		t.Errorf("the server sees %s, want %s", got, client)
	}
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}
