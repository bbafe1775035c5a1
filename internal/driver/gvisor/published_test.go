package gvisor

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/driver"
	"rootlesskit/internal/nstest"
	"rootlesskit/internal/sockio"
)

// publishedCases are the ways to a published port: who asks for what, and as
// whom the namespace sees him.
var publishedCases = []struct {
	name               string
	parentIP, childIP  string
	server             string // where the server in the namespace listens
	client, to, seenAs string
}{
	{"remote IPv4", "0.0.0.0", "", "10.0.2.100", "203.0.113.5", "198.51.100.7", "203.0.113.5"},
	{"remote IPv4, mapped", "::ffff:0.0.0.0", "", "10.0.2.100", "203.0.113.5", "198.51.100.7", "203.0.113.5"},
	{"remote IPv6", "::", "", "fdc8:5a1d:66e7::100", "2001:db8:113::5", "2001:db8:7::7", "2001:db8:113::5"},
	{"loopback IPv4", "0.0.0.0", "", "0.0.0.0", "127.0.0.1", "127.0.0.1", "10.0.2.1"},
	{"another loopback IPv4", "127.0.0.9", "10.0.2.100", "0.0.0.0", "127.0.0.5", "127.0.0.9", "10.0.2.1"},
	{"loopback IPv6", "::1", "", "::", "::1", "::1", "fdc8:5a1d:66e7::1"},
	{"IPv6 to IPv4", "::", "10.0.2.100", "10.0.2.100", "2001:db8:113::5", "2001:db8:7::7", "10.0.2.1"},
}

func TestPublishedTCP(t *testing.T) {
	s := newSandbox(t)
	for i, c := range publishedCases {
		t.Run(c.name, func(t *testing.T) {
			port := 8000 + i
			p := s.published(api.PortSpec{Proto: "tcp", ParentIP: c.parentIP, ParentPort: port, ChildIP: c.childIP, ChildPort: 80})
			l := s.child.ListenTCP(t, "tcp", net.JoinHostPort(c.server, "80"))
			defer l.Close()
			conn := mustDial(t, s.host, netip.MustParseAddr(c.client), addrPortOf(c.to, port))
			peer := mustAccept(t, l)
			if from := peer.RemoteAddr().(*net.TCPAddr).AddrPort(); from.Addr().Unmap() != netip.MustParseAddr(c.seenAs) {
				t.Errorf("the namespace sees %s, want %s", from, c.seenAs)
			} else if c.client == c.seenAs && from.Port() != conn.LocalAddr().(*net.TCPAddr).AddrPort().Port() {
				t.Errorf("the namespace sees %s, the client is %s", from, conn.LocalAddr())
			}
			go echo(peer)
			expectEcho(t, conn, "hello")
			conn.CloseWrite()
			if rest, err := io.ReadAll(conn); err != nil || len(rest) != 0 {
				t.Errorf("after half-close: %q, %v", rest, err)
			}
			d := details(p)
			if d.Accepted != 1 || d.BytesIn != 5 || d.BytesOut != 5 {
				t.Errorf("details: %+v", d)
			}
			p.Close()
			if _, err := dial(t, s.host, netip.Addr{}, addrPortOf(c.to, port)); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("after Close: %v", err)
			}
		})
	}
}

func addrPortOf(addr string, port int) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(addr), uint16(port))
}

func details(c io.Closer) api.PortDetails { return c.(driver.Detailer).Details() }

func TestPublishedUDP(t *testing.T) {
	s := newSandbox(t)
	for i, c := range publishedCases {
		t.Run(c.name, func(t *testing.T) {
			port := 8000 + i
			p := s.published(api.PortSpec{Proto: "udp", ParentIP: c.parentIP, ParentPort: port, ChildIP: c.childIP, ChildPort: 53})
			defer p.Close()
			server := udpIn(t, s.child, net.JoinHostPort(c.server, "53"))
			defer server.Close()
			client := udpIn(t, s.host, net.JoinHostPort(c.client, "0"))
			to := addrPortOf(c.to, port)
			if _, err := client.WriteToUDPAddrPort([]byte("who am I"), to); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 100)
			n, from, err := server.ReadFromUDPAddrPort(b)
			if err != nil {
				t.Fatal(err)
			}
			if string(b[:n]) != "who am I" || from.Addr().Unmap() != netip.MustParseAddr(c.seenAs) {
				t.Errorf("the namespace got %q from %s, want %s", b[:n], from, c.seenAs)
			}
			go echoUDP(server)
			for _, size := range []int{0, 1, 1473, 9000, 65000} {
				expectUDPEcho(t, client, to, size)
			}
			if d := details(p); d.Accepted != 1 || d.Active != 1 || d.BytesIn == 0 || d.BytesOut == 0 {
				t.Errorf("details: %+v", d)
			}
		})
	}
}

func TestPublishedTCPRefused(t *testing.T) {
	s := newSandbox(t)
	p := s.published(api.PortSpec{Proto: "tcp", ParentIP: "0.0.0.0", ParentPort: 8080, ChildPort: 9})
	conn, err := dial(t, s.host, clientAddr4, addrPortOf("198.51.100.7", 8080))
	if err == nil { // else the reset was faster
		_, err = conn.Read(make([]byte, 1))
	}
	if !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("%v, want a reset", err)
	}
	eventually(t, "the counter", func() bool { d := details(p); return d.Refused == 1 && d.LastError != "" && d.Active == 0 })
}

// TestPublishedTCPWithoutTheClientsPort has two clients that cannot both keep
// their port, since the namespace would take them for one.
func TestPublishedTCPWithoutTheClientsPort(t *testing.T) {
	s := newSandbox(t)
	accepts(s.child.ListenTCP(t, "tcp", "10.0.2.100:80"), echo)
	for i, parent := range []string{"198.51.100.7", "127.0.0.1"} {
		s.published(api.PortSpec{Proto: "tcp", ParentIP: parent, ParentPort: 8080, ChildPort: 80})
		s.published(api.PortSpec{Proto: "tcp", ParentIP: parent, ParentPort: 8081, ChildPort: 80})
		var open []*net.TCPConn
		for _, port := range []int{8080, 8081} {
			sa, _ := sockio.Sockaddr(addrPortOf(parent, port))
			fd, err := socketIn(s.host)(unix.AF_INET, unix.SOCK_STREAM, 0)
			if err != nil {
				t.Fatal(err)
			}
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
			bindTo, _ := sockio.Sockaddr(addrPortOf([]string{"203.0.113.5", "127.0.0.1"}[i], 40000))
			if err := unix.Bind(fd, bindTo); err != nil {
				t.Fatal(err)
			}
			if err := unix.Connect(fd, sa); err != nil && err != unix.EINPROGRESS {
				t.Fatal(err)
			}
			open = append(open, fileConn(t, fd).(*net.TCPConn))
		}
		for _, c := range open {
			expectEcho(t, c, "still distinct")
		}
	}
}

func TestPublishedTCPReset(t *testing.T) {
	s := newSandbox(t)
	s.published(api.PortSpec{Proto: "tcp", ParentIP: "0.0.0.0", ParentPort: 8080, ChildPort: 80})
	l := s.child.ListenTCP(t, "tcp", "10.0.2.100:80")
	connect := func(t *testing.T) (client, server *net.TCPConn) {
		client = mustDial(t, s.host, clientAddr4, addrPortOf("198.51.100.7", 8080))
		return client, mustAccept(t, l)
	}
	t.Run("by the client", func(t *testing.T) {
		client, server := connect(t)
		client.SetLinger(0)
		client.Close()
		if _, err := server.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("read: %v, want a reset", err)
		}
	})
	t.Run("by the server", func(t *testing.T) {
		client, server := connect(t)
		server.SetLinger(0)
		server.Close()
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("read: %v, want a reset", err)
		}
	})
	t.Run("by the server while the client does not read", func(t *testing.T) {
		client, server := connect(t)
		fillUp(t, server)
		server.SetLinger(0)
		server.Close()
		eventually(t, "a reset", func() bool {
			_, err := client.Write([]byte("x"))
			return err != nil
		})
	})
	t.Run("by the client while the server does not read", func(t *testing.T) {
		client, server := connect(t)
		fillUp(t, client)
		client.SetLinger(0)
		client.Close()
		eventually(t, "a reset", func() bool {
			_, err := server.Write([]byte("x"))
			return err != nil
		})
	})
}

// fillUp writes until nothing moves any more.
func fillUp(t *testing.T, c *net.TCPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1<<20)
	for quiet := 0; quiet < 20; quiet++ {
		_ = raw.Write(func(fd uintptr) bool {
			if n, _ := unix.Write(int(fd), b); n > 0 {
				quiet = 0
			}
			return true
		})
		pause()
	}
}

func TestPublishedTCPBulk(t *testing.T) {
	s := newSandbox(t)
	s.published(api.PortSpec{Proto: "tcp", ParentIP: "0.0.0.0", ParentPort: 8080, ChildPort: 80})
	l := s.child.ListenTCP(t, "tcp", "10.0.2.100:80")
	client := mustDial(t, s.host, clientAddr4, addrPortOf("198.51.100.7", 8080))
	exchange(t, client, mustAccept(t, l))
}

// TestCloseCutsConnections closes a port under load, and publishes it again.
func TestCloseCutsConnections(t *testing.T) {
	s := newSandbox(t)
	accepts(s.child.ListenTCP(t, "tcp", "10.0.2.100:80"), echo)
	spec := api.PortSpec{Proto: "tcp", ParentIP: "0.0.0.0", ParentPort: 8080, ChildPort: 80}
	for range 3 {
		p := s.published(spec)
		conn := mustDial(t, s.host, clientAddr4, addrPortOf("198.51.100.7", 8080))
		expectEcho(t, conn, "x")
		sent := make(chan error, 1)
		go func() {
			_, err := io.Copy(conn, endless{})
			sent <- err
		}()
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		// The kernel tells of the reset once: one of the two gets it.
		if _, err := io.Copy(io.Discard, conn); err == nil && !errors.Is(<-sent, unix.ECONNRESET) {
			t.Error("the connection ended without a reset")
		}
		if d := details(p); d.Active != 0 {
			t.Errorf("after Close: %+v", d)
		}
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// TestForward publishes through the real host's sockets.
func TestForward(t *testing.T) {
	s := newSandbox(t)
	accepts(s.child.ListenTCP(t, "tcp", "10.0.2.100:80"), echo)
	port := nstest.FreePort(t)
	free, err := net.Listen("tcp4", addrPortOf("127.0.0.1", port).String())
	if err != nil {
		t.Fatal(err)
	}
	spec := api.PortSpec{Proto: "tcp4", ParentIP: "127.0.0.1", ParentPort: port, ChildPort: 80}
	if _, err := s.ports.Forward(t.Context(), spec); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a port in use: %v", err)
	}
	free.Close()
	for range 2 {
		p, err := s.ports.Forward(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("tcp4", addrPortOf("127.0.0.1", port).String())
		if err != nil {
			t.Fatal(err)
		}
		expectEcho(t, conn, "hello")
		conn.Close()
		p.Close()
	}
	for _, bad := range []api.PortSpec{
		{Proto: "sctp", ParentPort: port, ChildPort: 80},
		{Proto: "tcp", ParentPort: port, ChildPort: 80, ChildIP: "nonsense"},
		{Proto: "tcp", ParentPort: port, ChildPort: 80, ParentIP: "nonsense"},
	} {
		if p, err := s.ports.Forward(t.Context(), bad); err == nil {
			p.Close()
			t.Errorf("%+v was accepted", bad)
		}
	}
}
