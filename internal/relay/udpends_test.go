package relay

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/nstest"
)

func TestUDPEndsWhileFlowsWait(t *testing.T) {
	_, addr := udpServer(t, "127.0.0.1:0")
	pools := newScarcePools(t)
	p := forwardUDP(t, UDPConfig{Router: routes{route: routeTo(addr)}, Pool: pools.pool})
	for i := range uint64(maxWaitingFlows + 2) { // one by one: together they do not fit into the listener's buffer
		send(t, dialPort(t, p, ""), strings.Repeat("x", 8000))
		eventually(t, p, "accepted", func(d api.PortDetails) bool { return d.Accepted == i+1 })
	}
	if d := p.Details(); d.Active != maxWaitingFlows {
		t.Errorf("details: %+v", d)
	}
	p.loop.mail.Call(func() {
		if p.waiting.bytes > maxHeldBytes {
			t.Errorf("%d bytes are held", p.waiting.bytes)
		}
	})
	_ = p.Close()
	if p.waiting.bytes != 0 {
		t.Errorf("still waiting: %+v", p.waiting)
	}
	before := nstest.OpenFDs()
	close(pools.fill) // for flows that have ended
	eventually(t, p, "answered", func(api.PortDetails) (done bool) {
		p.loop.mail.Call(func() { done = p.waiting.flows == 0 })
		return done
	})
	eventually(t, p, "at the baseline", func(api.PortDetails) bool { return len(nstest.NewFDs(before)) <= 2*8 }) // the pools' own
}

func TestUDPServerThatRefusesAndComesBack(t *testing.T) {
	server, addr := udpServer(t, unused(t, "127.0.0.1").String())
	p := forwardUDP(t, UDPConfig{Router: routes{route: routeTo(addr)}})
	c := dialPort(t, p, "")
	send(t, c, "1")
	_, first := receiveFrom(t, server)
	server.Close()
	p.loop.mail.Call(func() { // in one batch: each is told the refusal of the one before
		for _, msg := range []string{"2", "22", "222"} {
			send(t, c, msg)
		}
	})
	d := eventually(t, p, "refused", func(d api.PortDetails) bool { return d.Refused > 0 })
	if !strings.Contains(d.LastError, addr.String()) || !strings.Contains(d.LastError, "connection refused") {
		t.Errorf("last error: %q", d.LastError)
	}
	server, _ = udpServer(t, addr.String())
	send(t, c, "3")
	_, again := receiveFrom(t, server)
	if again != first {
		t.Errorf("the server saw %s, after its restart %s", first, again)
	}
	if _, err := server.WriteToUDPAddrPort([]byte("reply"), again); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, c); string(got) != "reply" {
		t.Errorf("got %q", got)
	}
	if d := p.Details(); d.Refused != 1 || d.Accepted != 1 {
		t.Errorf("details: %+v", d)
	}
}

func TestUDPFollowsAServerThatMoved(t *testing.T) {
	old := unused(t, "127.0.0.1")
	server, addr := udpServer(t, "127.0.0.1:0")
	var g guide
	g.set(Route{Target: old})
	p := forwardUDP(t, UDPConfig{Router: routes{route: g.resolve}})
	c := dialPort(t, p, "")
	send(t, c, "1")
	eventually(t, p, "refused", func(d api.PortDetails) bool { return d.Refused == 1 })
	g.set(Route{Target: addr})
	send(t, c, "2")
	if got := receive(t, server); string(got) != "2" {
		t.Errorf("got %q", got)
	}
	if d := p.Details(); d.Active != 1 || d.Accepted != 1 {
		t.Errorf("details: %+v", d)
	}
}

func TestUDPSource(t *testing.T) {
	server, addr := udpServer(t, "127.0.0.1:0")
	p := forwardUDP(t, UDPConfig{Router: routes{route: func(client, _ netip.AddrPort) Route {
		return Route{Source: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.9"), client.Port()), Target: addr}
	}}})
	want := unused(t, "127.0.0.9")
	send(t, dialPortFrom(t, p, want.Port()), "1")
	if _, from := receiveFrom(t, server); from != want {
		t.Errorf("the server saw %s, want %s", from, want)
	}

	_, taken := udpServer(t, unused(t, "127.0.0.9").String())
	send(t, dialPortFrom(t, p, taken.Port()), "2")
	if _, from := receiveFrom(t, server); from.Addr() != want.Addr() || from.Port() == taken.Port() {
		t.Errorf("the server saw %s", from)
	}
}

// dialPortFrom opens a client of a port of 127.0.0.1 that has a certain port itself.
func dialPortFrom(t *testing.T, p *UDPPort, port uint16) *net.UDPConn {
	t.Helper()
	from := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(port)}
	c, err := net.DialUDP("udp", from, net.UDPAddrFromAddrPort(p.listeners[0].bound))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestUDPRefusesWithoutARoute(t *testing.T) {
	_, target := udpServer(t, "127.0.0.1:0")
	for want, route := range map[string]Route{
		// Never by another source than asked. This one is not permitted here.
		"203.0.113.7:5555": {Source: netip.MustParseAddrPort("203.0.113.7:5555"), Target: target},
		"families":         {Source: netip.MustParseAddrPort("[::1]:5555"), Target: target},
		"no route":         {},
	} {
		p := forwardUDP(t, UDPConfig{Router: routes{route: func(_, _ netip.AddrPort) Route { return route }}})
		c := dialPort(t, p, "")
		send(t, c, "1")
		d := eventually(t, p, "refused", func(d api.PortDetails) bool { return d.Refused == 1 })
		if d.Active != 0 || !strings.Contains(d.LastError, want) {
			t.Errorf("details: %+v, want %q", d, want)
		}
	}
}

func TestUDPCloseUnderLoad(t *testing.T) {
	e, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	before := nstest.OpenFDs()
	server, addr := udpServer(t, "127.0.0.1:0")
	var echoing sync.WaitGroup
	echoing.Go(func() { udpEcho(server) })
	sa := &unix.SockaddrInet4{Addr: loopback4.Addr, Port: nstest.FreePort(t)}
	fd := boundUDP(t, sa)
	quiet := floodUDP(t, sa.Port)
	pools, endPools := endingPools(localSockets)
	for range 10 {
		p, err := e.ForwardUDP(UDPConfig{Sockets: []int{fd}, Pool: pools, Router: routes{route: routeTo(addr)}})
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, p, "replies", func(d api.PortDetails) bool { return d.BytesOut > 10000 })
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		if d := p.Details(); d.Active != 0 {
			t.Errorf("details after the end: %+v", d)
		}
		fd = boundUDP(t, sa) // free at once
	}
	quiet()
	endPools()
	server.Close()
	echoing.Wait()
	unix.Close(fd)
	if leaked := nstest.LeakedFDs(before); len(leaked) > 0 {
		t.Errorf("left open: %v", leaked)
	}
}

// floodUDP has clients send to a port without a pause, until the returned function is
// called.
func floodUDP(t *testing.T, port int) (quiet func()) {
	t.Helper()
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 4 {
		c, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			t.Fatal(err)
		}
		clients.Go(func() {
			defer c.Close()
			for msg := make([]byte, 1000); ; {
				select {
				case <-stop:
					return
				default:
					_, _ = c.Write(msg)
				}
			}
		})
	}
	return func() { close(stop); clients.Wait() }
}

func TestUDPCloseAfterTheEngine(t *testing.T) {
	e, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := e.ForwardUDP(UDPConfig{
		Sockets: []int{boundUDP(t, loopback4)}, Pool: localPools(t), Router: routes{route: routeTo(echoServer(t, "127.0.0.1:0"))},
	})
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, dialPort(t, p, ""), "x")
	_ = e.Close()
	for range 2 {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := e.ForwardUDP(UDPConfig{Sockets: []int{boundUDP(t, loopback4)}}); err == nil {
		t.Error("a port was forwarded without a loop")
	}
}

func TestUDPRejectsWhatIsNoIPSocket(t *testing.T) {
	e, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.ForwardUDP(UDPConfig{Sockets: []int{fd}}); err == nil {
		t.Error("a Unix socket was forwarded")
	}
}

// TestUDPSocketsHaveRoom: the sockets of a port hold more than the kernel gives
// them, for bursts.
func TestUDPSocketsHaveRoom(t *testing.T) {
	size := func(fd, option int) int {
		n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	fd := boundUDP(t, loopback4)
	for name, option := range map[string]int{"receive": unix.SO_RCVBUF, "send": unix.SO_SNDBUF} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 1<<16); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if n := size(fd, option); n <= 1<<17 {
				t.Errorf("%s buffer: %d bytes", name, n)
			}
		}()
	}
	forwardUDP(t, UDPConfig{Sockets: []int{fd}, Router: routes{route: routeTo(echoServer(t, "127.0.0.1:0"))}})
}
