package relay

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/nstest"
)

// udpServer opens a server; its address is that of a route.
func udpServer(t testing.TB, address string) (*net.UDPConn, netip.AddrPort) {
	t.Helper()
	pc, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	c := pc.(*net.UDPConn)
	roomy(c)
	return c, unmapped(c.LocalAddr().(*net.UDPAddr).AddrPort())
}

// unused is an address at which nobody is, nor comes by chance.
func unused(t testing.TB, ip string) netip.AddrPort {
	t.Helper()
	return netip.AddrPortFrom(netip.MustParseAddr(ip), uint16(nstest.FreePort(t)))
}

func unmapped(ap netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// echo answers every datagram until the server is closed.
func udpEcho(c *net.UDPConn) {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		_, _ = c.WriteToUDPAddrPort(buf[:n], from)
	}
}

func echoServer(t testing.TB, address string) netip.AddrPort {
	t.Helper()
	c, addr := udpServer(t, address)
	var wg sync.WaitGroup
	wg.Go(func() { udpEcho(c) })
	t.Cleanup(func() { c.Close(); wg.Wait() })
	return addr
}

// boundUDP is a socket for ForwardUDP.
func boundUDP(t testing.TB, sa unix.Sockaddr) int {
	t.Helper()
	family := unix.AF_INET
	if _, ok := sa.(*unix.SockaddrInet6); ok {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if family == unix.AF_INET6 {
		_ = unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_V6ONLY, 0) // the harder case
	}
	if err := unix.Bind(fd, sa); err != nil {
		unix.Close(fd)
		t.Fatal(err)
	}
	return fd
}

var (
	loopback4 = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	loopback6 = &unix.SockaddrInet6{Addr: [16]byte{15: 1}}
	wildcard4 = &unix.SockaddrInet4{}
	wildcard6 = &unix.SockaddrInet6{}
)

// routeTo is a Route function.
func routeTo(target netip.AddrPort) func(_, _ netip.AddrPort) Route {
	return func(_, _ netip.AddrPort) Route { return Route{Target: target} }
}

// forwardUDP forwards a port on an engine of its own. What cfg lacks has a
// default: a listener on 127.0.0.1, and sockets of this namespace.
func forwardUDP(t testing.TB, cfg UDPConfig) *UDPPort {
	t.Helper()
	return forwardUDPOn(t, newEngine(t), cfg)
}

func forwardUDPOn(t testing.TB, e *Engine, cfg UDPConfig) *UDPPort {
	t.Helper()
	if cfg.Sockets == nil {
		cfg.Sockets = []int{boundUDP(t, loopback4)}
	}
	if cfg.Pool == nil {
		cfg.Pool = localPools(t)
	}
	p, err := e.ForwardUDP(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// dialPort opens a client of a port's first listener; ip replaces a wildcard.
func dialPort(t testing.TB, p *UDPPort, ip string) *net.UDPConn {
	t.Helper()
	addr := p.listeners[0].bound
	if ip != "" {
		addr = netip.AddrPortFrom(netip.MustParseAddr(ip), addr.Port())
	}
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	roomy(c)
	return c
}

// roomy lets a socket hold a burst until the test gets to read it.
func roomy(c *net.UDPConn) { _ = c.SetReadBuffer(1 << 20) }

const soon = time.Minute

func receive(t testing.TB, c *net.UDPConn) []byte {
	t.Helper()
	msg, _ := receiveFrom(t, c)
	return msg
}

func receiveFrom(t testing.TB, c *net.UDPConn) ([]byte, netip.AddrPort) {
	t.Helper()
	buf := make([]byte, 1<<16)
	_ = c.SetReadDeadline(time.Now().Add(soon))
	n, from, err := c.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n], unmapped(from)
}

func send(t testing.TB, c *net.UDPConn, msg string) {
	t.Helper()
	if _, err := c.Write([]byte(msg)); err != nil {
		t.Fatal(err)
	}
}

// exchange sends a message to an echo server and waits for it to come back.
func exchange(t testing.TB, c *net.UDPConn, msg string) {
	t.Helper()
	send(t, c, msg)
	if got := receive(t, c); string(got) != msg {
		t.Fatalf("sent %d bytes, got %d other ones back", len(msg), len(got))
	}
}

// eventually waits for a state of the port.
func eventually(t testing.TB, p *UDPPort, what string, ok func(api.PortDetails) bool) api.PortDetails {
	t.Helper()
	for deadline := time.Now().Add(soon); ; time.Sleep(time.Millisecond) {
		d := p.Details()
		if ok(d) {
			return d
		}
		if time.Now().After(deadline) {
			t.Fatalf("never %s: %+v", what, d)
		}
	}
}

func TestUDPEcho(t *testing.T) {
	for _, tc := range []struct {
		name           string
		listen         unix.Sockaddr
		client, server string
	}{
		{"IPv4", loopback4, "", "127.0.0.1:0"},
		{"IPv6", loopback6, "", "[::1]:0"},
		{"IPv4 to IPv6", loopback4, "", "[::1]:0"},
		{"wildcard IPv4", wildcard4, "127.0.0.2", "127.0.0.1:0"},
		{"wildcard IPv6", wildcard6, "::1", "[::1]:0"},
		{"IPv4 at a wildcard of both families", wildcard6, "127.0.0.2", "127.0.0.1:0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := forwardUDP(t, UDPConfig{
				Sockets: []int{boundUDP(t, tc.listen)},
				Router:  routes{route: routeTo(echoServer(t, tc.server))},
			})
			var wg sync.WaitGroup
			var bytes atomic.Uint64
			for i := range 4 {
				c := dialPort(t, p, tc.client) // connected: takes replies from that address only
				wg.Go(func() {
					for j := range 50 {
						msg := fmt.Sprint(i, j)
						exchange(t, c, msg)
						bytes.Add(uint64(len(msg)))
					}
				})
			}
			wg.Wait()
			eventually(t, p, "all counted", func(d api.PortDetails) bool {
				return d.Accepted == 4 && d.Active == 4 && d.Refused == 0 && d.BytesIn == bytes.Load() && d.BytesOut == d.BytesIn
			})
		})
	}
}

func TestUDPTellsTheAskedAddressesOfAWildcardApart(t *testing.T) {
	locals := make(chan netip.AddrPort, 2)
	server := echoServer(t, "127.0.0.1:0")
	p := forwardUDP(t, UDPConfig{
		Sockets: []int{boundUDP(t, wildcard4)},
		Router: routes{route: func(_, local netip.AddrPort) Route {
			locals <- local
			return Route{Target: server}
		}},
	})
	c, _ := udpServer(t, "127.0.0.1:0") // one unconnected client
	for _, ip := range []string{"127.0.0.2", "127.0.0.3"} {
		asked := netip.AddrPortFrom(netip.MustParseAddr(ip), p.listeners[0].bound.Port())
		if _, err := c.WriteToUDPAddrPort([]byte(ip), asked); err != nil {
			t.Fatal(err)
		}
		if msg, from := receiveFrom(t, c); string(msg) != ip || from != asked {
			t.Errorf("asked %s, got %q from %s", asked, msg, from)
		}
		if local := <-locals; local != asked {
			t.Errorf("asked %s, the route was for %s", asked, local)
		}
	}
}

func TestUDPPassesEverySize(t *testing.T) {
	for name, listen := range map[string]unix.Sockaddr{"127.0.0.1:0": loopback4, "[::1]:0": loopback6} {
		p := forwardUDP(t, UDPConfig{
			Sockets: []int{boundUDP(t, listen)},
			Router:  routes{route: routeTo(echoServer(t, name))},
		})
		c := dialPort(t, p, "")
		for _, size := range []int{0, 1, 1472, 1473, 9000, 65506, 65507} {
			exchange(t, c, strings.Repeat("x", size))
		}
	}
}

// TestUDPKeepsBoundariesAndOrder sends datagrams one by one and in segments
// (UDP_SEGMENT), which are put together and cut apart on the way.
func TestUDPKeepsBoundariesAndOrder(t *testing.T) {
	for name, listen := range map[string]unix.Sockaddr{"127.0.0.1": loopback4, "127.0.0.2": wildcard4, "::1": wildcard6} {
		t.Run(name, func(t *testing.T) {
			server, addr := udpServer(t, "127.0.0.1:0")
			p := forwardUDP(t, UDPConfig{Sockets: []int{boundUDP(t, listen)}, Router: routes{route: routeTo(addr)}})
			c := dialPort(t, p, name)
			random := rand.New(rand.NewPCG(1, 2))
			for range 100 {
				sent := sendBurst(t, c, nil, random)
				from := expect(t, server, sent)
				sent = sendBurst(t, server, &from, random)
				expect(t, c, sent)
			}
		})
	}
}

// sendBurst sends datagrams and returns them, in their order.
func sendBurst(t testing.TB, c *net.UDPConn, to *netip.AddrPort, random *rand.Rand) (sent [][]byte) {
	t.Helper()
	for len(sent) < 24 {
		size := []int{0, 1, 100, 100, 1200, 1200}[random.IntN(6)]
		count := 1 + random.IntN(12)
		data := make([]byte, size*count-random.IntN(size+1)*min(count-1, 1))
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		if size == 0 || random.IntN(2) == 0 { // one by one
			for part := range chunks(data, size) {
				sendSegments(t, c, to, part, 0)
				sent = append(sent, part)
			}
			continue
		}
		sendSegments(t, c, to, data, size)
		for part := range chunks(data, size) {
			sent = append(sent, part)
		}
	}
	return sent
}
