package publish

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/hostsock"
	"rootlesskit/internal/netns"
	"rootlesskit/internal/nstest"
	"rootlesskit/internal/sockio"
)

var (
	childIPv4 = netip.MustParsePrefix("10.0.2.100/24")
	childIPv6 = netip.MustParsePrefix("fd00::100/64")
)

// remoteTest has ports with clients that are not of their host: they and the
// ports' sockets are in a namespace of their own, which stands for the outside.
type remoteTest struct {
	ports          *Ports
	child, outside *nstest.Child
}

var (
	outsideIPv4 = netip.MustParsePrefix("203.0.113.7/24")
	outsideIPv6 = netip.MustParsePrefix("2001:db8::7/64")
)

func newRemoteTest(t *testing.T) *remoteTest {
	child := nstest.NewChild(t)
	addAddresses(t, child, childIPv4, childIPv6)
	return newRemoteTestIn(t, child, Config{IPv4: childIPv4.Addr(), IPv6: childIPv6.Addr()})
}

// newRemoteTestIn has a child with a network.
func newRemoteTestIn(t *testing.T, child *nstest.Child, cfg Config) *remoteTest {
	r := &remoteTest{child: child, outside: nstest.NewChild(t)}
	addAddresses(t, r.outside, outsideIPv4, outsideIPv6)
	cfg.Backend, cfg.Log = "auto", slog.New(slog.NewTextHandler(t.Output(), nil))
	r.ports = Open(context.WithoutCancel(t.Context()), r.child, cfg)
	t.Cleanup(r.ports.Close)
	return r
}

func addAddresses(t *testing.T, c *nstest.Child, addrs ...netip.Prefix) {
	t.Helper()
	tap, err := netns.OpenTAP(t.Context(), c, netns.TAPRequest{Name: "tap0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(tap) })
	if err := netns.Configure(t.Context(), c, netns.LinkRequest{Name: "tap0", Addrs: addrs}); err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		waitLocal(t, c, a.Addr())
	}
}

// waitLocal waits until a new address answers. The kernel makes the route of an
// IPv6 address in the background, and packets that are sent before are lost.
func waitLocal(t *testing.T, c *nstest.Child, ip netip.Addr) {
	t.Helper()
	socket := c.ListenUDP(t, "udp", netip.AddrPortFrom(ip, 0).String())
	self := socket.LocalAddr().(*net.UDPAddr).AddrPort()
	for range 200 {
		if _, err := socket.WriteToUDPAddrPort([]byte("?"), self); err != nil {
			t.Fatal(err)
		}
		_ = socket.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, _, err := socket.ReadFromUDPAddrPort(make([]byte, 1)); err == nil {
			return
		}
	}
	t.Fatalf("%s does not answer", ip)
}

// publish forwards a socket of the outside until the test ends.
func (r *remoteTest) publish(t *testing.T, proto string, socket syscall.Conn, to string) {
	t.Helper()
	raw, err := socket.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	fd := -1
	_ = raw.Control(func(s uintptr) { fd, err = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0) })
	if err != nil {
		t.Fatal(err)
	}
	port, err := r.ports.ForwardOn(api.PortSpec{Proto: api.Proto(proto)}, netip.MustParseAddrPort(to), hostsock.Sockets{FDs: []int{fd}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { port.Close() })
}

func TestRemoteTCPClientIsNotLoopback(t *testing.T) {
	r := newRemoteTest(t)
	for i, c := range []struct{ outside, target, want string }{
		{"203.0.113.7:8080", "127.0.0.1:80", "203.0.113.7"},
		{"[2001:db8::7]:8080", "127.0.0.1:81", "10.0.2.100"},
		{"[2001:db8::7]:8081", "[::1]:82", "2001:db8::7"},
		{"127.0.0.1:8080", "127.0.0.1:83", "127.0.0.1"},
		{"[::1]:8080", "127.0.0.1:84", "127.0.0.1"},
	} {
		server := r.child.ListenTCP(t, "tcp", c.target)
		r.publish(t, "tcp", r.outside.ListenTCP(t, "tcp", c.outside), c.target)
		r.connect(t, netip.MustParseAddrPort(c.outside))
		_ = server.SetDeadline(time.Now().Add(time.Minute))
		conn, err := server.AcceptTCP()
		if err != nil {
			t.Fatalf("case %d: %v", i, err)
		}
		conn.Close()
		if got := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap(); got.String() != c.want {
			t.Errorf("a client of %s appears as %s, want %s", c.outside, got, c.want)
		}
	}
}

// connect connects to an address of the outside, from the same address.
func (r *remoteTest) connect(t *testing.T, to netip.AddrPort) {
	t.Helper()
	fds, err := netns.Sockets(t.Context(), r.outside, netns.SocketRequest{Family: sockio.Family(to.Addr()), Type: unix.SOCK_STREAM, Count: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sockio.CloseAll(fds) })
	if err := sockio.Connect(fds[0], to); err != 0 && err != unix.EINPROGRESS {
		t.Fatal(err)
	}
}

func TestRemoteUDPClientIsNotLoopback(t *testing.T) {
	r := newRemoteTest(t)
	for i, c := range []struct{ outside, client, server, target, want string }{
		{"203.0.113.7:8080", "203.0.113.7:0", "0.0.0.0:80", "127.0.0.1:80", "10.0.2.100"},
		{"[2001:db8::7]:8080", "[2001:db8::7]:0", "[::]:81", "[::1]:81", "fd00::100"},
		{"[2001:db8::7]:8081", "[2001:db8::7]:0", "0.0.0.0:82", "127.0.0.1:82", "fd00::100"},
		{"127.0.0.1:8080", "127.0.0.1:0", "127.0.0.1:83", "127.0.0.1:83", "127.0.0.1"},
	} {
		server := r.child.ListenUDP(t, "udp", c.server)
		r.publish(t, "udp", r.outside.ListenUDP(t, "udp", c.outside), c.target)
		client := r.outside.ListenUDP(t, "udp", c.client)
		for _, s := range []*net.UDPConn{server, client} {
			_ = s.SetDeadline(time.Now().Add(time.Minute))
		}
		if _, err := client.WriteToUDPAddrPort([]byte("?"), netip.MustParseAddrPort(c.outside)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 10)
		_, from, err := server.ReadFromUDPAddrPort(buf)
		if err != nil {
			t.Fatalf("case %d: %v", i, err)
		}
		if got := from.Addr().Unmap(); got.String() != c.want {
			t.Errorf("a client of %s appears as %s, want %s", c.outside, got, c.want)
		}
		if _, err := server.WriteToUDPAddrPort([]byte("!"), from); err != nil {
			t.Fatal(err)
		}
		if _, from, err = client.ReadFromUDPAddrPort(buf); err != nil || from.String() != c.outside {
			t.Errorf("case %d: the answer comes from %v, %v", i, from, err)
		}
	}
}
