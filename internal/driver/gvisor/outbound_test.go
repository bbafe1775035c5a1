package gvisor

import (
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/driver"
	"rootlesskit/internal/nstest"
	"rootlesskit/internal/sockio"
)

// families are the addresses of the world that the tests talk to.
var families = map[string]netip.Addr{"IPv4": hostAddr4, "IPv6": hostAddr6}

func TestOutboundTCPEchoes(t *testing.T) {
	s := newSandbox(t)
	for name, addr := range families {
		t.Run(name, func(t *testing.T) {
			to := netip.AddrPortFrom(addr, 7)
			accepts(s.host.ListenTCP(t, "tcp", to.String()), echo)
			conn := mustDial(t, s.child, netip.Addr{}, to)
			expectEcho(t, conn, "hello")
			conn.CloseWrite()
			if rest, err := io.ReadAll(conn); err != nil || len(rest) != 0 {
				t.Errorf("after half-close: %q, %v", rest, err)
			}
		})
	}
}

func expectEcho(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
		t.Fatalf("echo of %q: %q, %v", text, got, err)
	}
}

func TestGatewayIsTheHostsLoopback(t *testing.T) {
	s := newSandbox(t, withConfig(func(cfg *driver.NetworkConfig) { cfg.CIDR = netip.MustParsePrefix("10.77.0.0/16") }))
	for _, c := range []struct{ gateway, loopback string }{
		{"10.77.0.1:80", "127.0.0.1:80"},
		{netip.AddrPortFrom(s.network.plan.gateway6, 80).String(), "[::1]:80"},
	} {
		accepts(s.host.ListenTCP(t, "tcp", c.loopback), echo)
		expectEcho(t, mustDial(t, s.child, netip.Addr{}, netip.MustParseAddrPort(c.gateway)), "loop")
	}
}

func TestOutboundTCPRefusedAndUnreachable(t *testing.T) {
	s := newSandbox(t)
	for to, want := range map[string]error{
		"198.51.100.7:9":        unix.ECONNREFUSED,
		"[2001:db8:7::7]:9":     unix.ECONNREFUSED,
		"10.0.2.1:9":            unix.ECONNREFUSED,
		"192.0.2.99:9":          unix.ENETUNREACH,
		"[2001:db8:dead::1]:9":  unix.ENETUNREACH,
		"10.0.2.3:9":            unix.ECONNREFUSED,
		"[fdc8:5a1d:66e7::1]:9": unix.ECONNREFUSED,
	} {
		_, err := dial(t, s.child, netip.Addr{}, netip.MustParseAddrPort(to))
		if !errors.Is(err, want) {
			t.Errorf("dial %s: %v, want %v", to, err, want)
		}
	}
}

func TestOutboundTCPReset(t *testing.T) {
	s := newSandbox(t)
	to := netip.AddrPortFrom(hostAddr4, 7)
	l := s.host.ListenTCP(t, "tcp", to.String())
	t.Run("by the world", func(t *testing.T) {
		conn := mustDial(t, s.child, netip.Addr{}, to)
		peer := mustAccept(t, l)
		peer.SetLinger(0)
		peer.Close()
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("read: %v, want a reset", err)
		}
	})
	t.Run("by the namespace", func(t *testing.T) {
		conn := mustDial(t, s.child, netip.Addr{}, to)
		peer := mustAccept(t, l)
		conn.SetLinger(0)
		conn.Close()
		if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("read: %v, want a reset", err)
		}
	})
	t.Run("by the namespace after its end of file", func(t *testing.T) {
		conn := mustDial(t, s.child, netip.Addr{}, to)
		peer := mustAccept(t, l)
		conn.CloseWrite()
		if _, err := peer.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("read: %v, want the end of file", err)
		}
		conn.SetLinger(0)
		conn.Close()
		eventually(t, "a reset", func() bool {
			_, err := peer.Write([]byte("x"))
			return err != nil
		})
	})
}

// TestOutboundTCPBulk moves 100 MiB each way at a time.
func TestOutboundTCPBulk(t *testing.T) {
	for _, mtu := range []int{65520, 1500} {
		s := newSandbox(t, withConfig(func(cfg *driver.NetworkConfig) { cfg.MTU = mtu }))
		for name, addr := range families {
			t.Run(name, func(t *testing.T) {
				to := netip.AddrPortFrom(addr, 9000)
				l := s.host.ListenTCP(t, "tcp", to.String())
				exchange(t, mustDial(t, s.child, netip.Addr{}, to), mustAccept(t, l))
			})
		}
	}
}

func mustAccept(t *testing.T, l *net.TCPListener) *net.TCPConn {
	t.Helper()
	c, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

const bulkSize = 100 << 20

// exchange sends bulkSize both ways between the ends of a connection, at the
// same time, and compares checksums.
func exchange(t *testing.T, a, b *net.TCPConn) {
	t.Helper()
	_ = a.SetDeadline(time.Time{}) // an emulated machine takes minutes
	type sum = [sha256.Size]byte
	send := func(c *net.TCPConn, seed uint64, result chan<- sum) {
		h := sha256.New()
		var key [32]byte
		key[0] = byte(seed)
		_, err := io.CopyN(io.MultiWriter(c, h), rand.NewChaCha8(key), bulkSize)
		if err != nil {
			t.Errorf("sending: %v", err)
			c.Close() // nobody is to wait for the rest
		}
		c.CloseWrite()
		result <- sum(h.Sum(nil))
	}
	receive := func(c *net.TCPConn, result chan<- sum) {
		h := sha256.New()
		if n, err := io.Copy(h, c); err != nil || n != bulkSize {
			t.Errorf("received %d bytes, %v", n, err)
			c.Close()
		}
		result <- sum(h.Sum(nil))
	}
	results := [4]chan sum{}
	for i := range results {
		results[i] = make(chan sum, 1)
	}
	go send(a, 1, results[0])
	go receive(b, results[1])
	go send(b, 2, results[2])
	go receive(a, results[3])
	if <-results[0] != <-results[1] || <-results[2] != <-results[3] {
		t.Error("checksums differ")
	}
}

func TestOutboundUDPEchoes(t *testing.T) {
	for _, mtu := range []int{65520, 1500} {
		s := newSandbox(t, withConfig(func(cfg *driver.NetworkConfig) { cfg.MTU = mtu }))
		for _, c := range []struct{ to, server, from string }{
			{"198.51.100.7:7", "198.51.100.7:7", "10.0.2.100:0"},
			{"[2001:db8:7::7]:7", "[2001:db8:7::7]:7", "[fdc8:5a1d:66e7::100]:0"},
			{"10.0.2.1:7", "127.0.0.1:7", "10.0.2.100:0"},
			{"[fdc8:5a1d:66e7::1]:7", "[::1]:7", "[fdc8:5a1d:66e7::100]:0"},
		} {
			server := udpIn(t, s.host, c.server)
			go echoUDP(server)
			client := udpIn(t, s.child, c.from)
			for _, size := range []int{0, 1, 1400, 1473, 9000, 65000} {
				expectUDPEcho(t, client, netip.MustParseAddrPort(c.to), size)
			}
		}
	}
}

func echoUDP(c *net.UDPConn) {
	b := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		_, _ = c.WriteToUDPAddrPort(b[:n], from)
	}
}

func expectUDPEcho(t *testing.T, client *net.UDPConn, to netip.AddrPort, size int) {
	t.Helper()
	sent := make([]byte, size)
	for i := range sent {
		sent[i] = byte(rand.Uint32())
	}
	if _, err := client.WriteToUDPAddrPort(sent, to); err != nil {
		t.Fatalf("sending %d bytes to %s: %v", size, to, err)
	}
	got := make([]byte, 1<<16)
	n, from, err := client.ReadFromUDPAddrPort(got)
	if err != nil {
		t.Fatalf("echo of %d bytes from %s: %v", size, to, err)
	}
	if from.Port() != to.Port() || from.Addr().Unmap() != to.Addr() || string(got[:n]) != string(sent) {
		t.Errorf("echo of %d bytes from %s: got %d bytes from %s", size, to, n, from)
	}
}

func TestOutboundUDPRefused(t *testing.T) {
	s := newSandbox(t)
	for to, want := range map[string]error{
		"198.51.100.7:9":        unix.ECONNREFUSED,
		"[2001:db8:7::7]:9":     unix.ECONNREFUSED,
		"10.0.2.1:9":            unix.ECONNREFUSED,
		"[fdc8:5a1d:66e7::1]:9": unix.ECONNREFUSED,
		"10.0.2.3:9":            unix.ECONNREFUSED,
		"192.0.2.99:9":          unix.ENETUNREACH,
		"[2001:db8:dead::1]:9":  unix.ENETUNREACH,
	} {
		conn := connectUDP(t, s.child, netip.MustParseAddrPort(to))
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, want) {
			t.Errorf("UDP to %s: %v, want %v", to, err, want)
		}
	}
}

// connectUDP opens a connected UDP socket, which is told of ICMP errors.
func connectUDP(t *testing.T, from *nstest.Child, to netip.AddrPort) net.Conn {
	t.Helper()
	sa, family := sockio.Sockaddr(to)
	fd, err := socketIn(from)(family, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := queueErrors(fd, family); err != nil { // also reports unreachable networks
		t.Fatal(err)
	}
	if err := unix.Connect(fd, sa); err != nil {
		t.Fatal(err)
	}
	return fileConn(t, fd)
}

func TestOneSocketForASender(t *testing.T) {
	s := newSandbox(t)
	a, b := udpIn(t, s.host, "198.51.100.7:1001"), udpIn(t, s.host, "198.51.100.7:1002")
	client := udpIn(t, s.child, "10.0.2.100:5000")
	var seen []netip.AddrPort
	for _, server := range []*net.UDPConn{a, b} {
		to := server.LocalAddr().(*net.UDPAddr).AddrPort()
		if _, err := client.WriteToUDPAddrPort([]byte("x"), to); err != nil {
			t.Fatal(err)
		}
		_, from, err := server.ReadFromUDPAddrPort(make([]byte, 1))
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, from)
	}
	if seen[0] != seen[1] {
		t.Errorf("the sender has two mappings, %s and %s", seen[0], seen[1])
	}
}
