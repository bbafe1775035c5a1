package relay

import (
	"bytes"
	"encoding/binary"
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
	"rootlesskit/internal/netns"
	"rootlesskit/internal/nstest"
	"rootlesskit/internal/sockio"
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

func chunks(data []byte, size int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for ok := true; ok; ok = len(data) > 0 {
			n := min(size, len(data))
			if !yield(data[:n]) {
				return
			}
			data = data[n:]
		}
	}
}

func sendSegments(t testing.TB, c *net.UDPConn, to *netip.AddrPort, data []byte, size int) {
	t.Helper()
	var control []byte
	if size > 0 {
		control = sockio.AppendSegment(nil, size)
	}
	var err error
	if to != nil {
		_, _, err = c.WriteMsgUDPAddrPort(data, control, *to)
	} else {
		_, _, err = c.WriteMsgUDP(data, control, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func expect(t testing.TB, c *net.UDPConn, sent [][]byte) (from netip.AddrPort) {
	t.Helper()
	for i, want := range sent {
		var got []byte
		if got, from = receiveFrom(t, c); !bytes.Equal(got, want) {
			t.Fatalf("datagram %d of %d has %d bytes, want %d, or others", i, len(sent), len(got), len(want))
		}
	}
	return from
}

// TestUDPSendsApartWhatTheRouteDoesNotCut has segments that are longer than the
// MTU in the namespace, where the kernel takes them one by one only.
func TestUDPSendsApartWhatTheRouteDoesNotCut(t *testing.T) {
	child := nstest.NewChild(t)
	if err := netns.Configure(t.Context(), child, netns.LinkRequest{Name: "lo", MTU: 700}); err != nil {
		t.Fatal(err)
	}
	server := child.ListenUDP(t, "udp4", "127.0.0.1:5000")
	roomy(server)
	p := forwardUDP(t, UDPConfig{
		Pool:   childPools(t, child),
		Router: routes{route: routeTo(netip.MustParseAddrPort("127.0.0.1:5000"))},
	})
	c := dialPort(t, p, "")
	// The flow has its socket after the first datagram; before, it holds a few.
	if _, err := c.Write([]byte("first")); err != nil {
		t.Fatal(err)
	}
	expect(t, server, [][]byte{[]byte("first")})
	random := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		expect(t, server, sendBurst(t, c, nil, random))
	}
}

func TestUDPMergesDatagramsOfOneSize(t *testing.T) {
	b := newUDPBatch()
	b.tx.gso = true
	f, other := &udpFlow{}, &udpFlow{}
	add := func(f *udpFlow, len, gro int) {
		s := &b.slots[b.tx.iovs]
		s.len, s.info.Segment = len, gro
		b.tx.add(f, s, udpToServer)
	}
	for _, len := range []int{100, 100, 60} { // one, with a shorter end
		add(f, len, 0)
	}
	add(f, 60, 0)     // one
	add(other, 60, 0) // one: another flow
	add(other, 0, 0)  // one: empty
	add(other, 90, 0) // one with the next
	add(other, 90, 0)
	add(other, 91, 0)   // one: longer
	add(other, 300, 91) // one: several already
	add(other, 40, 0)
	other.whole[udpToServer] = true
	add(other, 50, 0)
	add(other, 50, 0)
	var got []string
	for i := range b.tx.n {
		m := &b.tx.send[i]
		got = append(got, fmt.Sprintf("%d:%d/%d", m.slots, m.bytes, segmentOf(m)))
	}
	want := "3:260/100 1:60/0 1:60/0 1:0/0 2:180/90 1:91/0 1:300/91 1:40/0 1:50/0 1:50/0"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
}

// parseUDPSegment returns the length that a message is cut at, 0 for never.
// segmentOf is what the kernel is told to cut a message into; 0: it is not told.
func segmentOf(m *udpSend) int {
	h, data, _ := sockio.NextControl(m.control[:])
	if !m.cut || h == nil || h.Type != unix.UDP_SEGMENT {
		return 0
	}
	return int(binary.NativeEndian.Uint16(data))
}

// pass has time pass for a port.
func pass(p *UDPPort, d time.Duration) {
	p.loop.call(func() { p.loop.start = p.loop.start.Add(-d) })
}

// TestUDPFlowsLiveWhileThereIsRoom: a server may take its time for the first reply
// and for each after it.
func TestUDPFlowsLiveWhileThereIsRoom(t *testing.T) {
	server, addr := udpServer(t, "127.0.0.1:0")
	p := forwardUDP(t, UDPConfig{Router: routes{route: routeTo(addr)}})
	c := dialPort(t, p, "")
	send(t, c, "first")
	_, from := receiveFrom(t, server)
	for i, silence := range []time.Duration{40 * time.Second, 200 * time.Second, 59 * time.Minute} {
		pass(p, silence)
		if _, err := server.WriteToUDPAddrPort([]byte(fmt.Sprint(i)), from); err != nil {
			t.Fatal(err)
		}
		if got := receive(t, c); string(got) != fmt.Sprint(i) {
			t.Errorf("after %v of silence: got %q", silence, got)
		}
	}
	pass(p, 59*time.Minute)
	send(t, c, "again")
	if _, again := receiveFrom(t, server); again != from {
		t.Errorf("the server saw %s, and later %s", from, again)
	}
	pass(p, 61*time.Minute)
	eventually(t, p, "ended", func(d api.PortDetails) bool { return d.Active == 0 })
}

func TestUDPBoundsItsFlows(t *testing.T) {
	server, addr := udpServer(t, "127.0.0.1:0")
	p := forwardUDP(t, UDPConfig{Router: routes{route: routeTo(addr)}, MaxFlows: 3})
	var clients []*net.UDPConn
	for i := range 4 {
		c := dialPort(t, p, "")
		clients = append(clients, c)
		send(t, c, fmt.Sprint(i))
		_, from := receiveFrom(t, server)
		if i == 0 { // whether it was answered does not matter, but when it was used
			_, _ = server.WriteToUDPAddrPort([]byte("reply"), from)
			receive(t, c)
		}
		if i == 2 {
			send(t, clients[0], "more")
			receiveFrom(t, server)
		}
	}
	d := p.Details()
	if d.Active != 3 || d.Accepted != 4 || d.AcceptErrors == 0 {
		t.Errorf("details: %+v", d)
	}
	for _, kept := range []int{0, 2, 3} {
		send(t, clients[kept], "more")
		receiveFrom(t, server)
	}
	if d := p.Details(); d.Accepted != 4 {
		t.Errorf("a flow that should have been kept was ended: %+v", d)
	}
}

// TestUDPNewClientsOfAFullTable: each new client is answered, although all that are
// in the table were.
func TestUDPNewClientsOfAFullTable(t *testing.T) {
	server, addr := udpServer(t, "127.0.0.1:0")
	p := forwardUDP(t, UDPConfig{Router: routes{route: routeTo(addr)}, MaxFlows: 8})
	for range 8 {
		c := dialPort(t, p, "")
		send(t, c, "old")
		_, from := receiveFrom(t, server)
		_, _ = server.WriteToUDPAddrPort([]byte("reply"), from)
		receive(t, c)
	}
	one, two := dialPort(t, p, ""), dialPort(t, p, "")
	send(t, one, "1")
	_, first := receiveFrom(t, server)
	send(t, two, "2")
	_, second := receiveFrom(t, server)
	for c, from := range map[*net.UDPConn]netip.AddrPort{one: first, two: second} {
		_, _ = server.WriteToUDPAddrPort([]byte("reply"), from)
		if got := receive(t, c); string(got) != "reply" {
			t.Errorf("got %q", got)
		}
	}
}

// TestUDPPortsShareDescriptors has more clients than there may be flows, and a
// second port that must not be kept out by the first.
func TestUDPPortsShareDescriptors(t *testing.T) {
	echo := echoServer(t, "127.0.0.1:0")
	e := newEngine(t)
	busy := forwardUDPOn(t, e, UDPConfig{Router: routes{route: routeTo(echo)}})
	other := forwardUDPOn(t, e, UDPConfig{Router: routes{route: routeTo(echo)}})
	limit := len(nstest.OpenFDs()) + 200
	nstest.LimitFDs(t, limit)
	for range 2 * limit {
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(busy.listeners[0].bound))
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, c, "x")
		c.Close()
	}
	if d := busy.Details(); d.Active > uint64(limit/flowShare) {
		t.Errorf("%d flows under a limit of %d descriptors", d.Active, limit)
	}
	first, second := dialPort(t, other, ""), dialPort(t, other, "")
	for range 3 {
		exchange(t, first, "1")
		exchange(t, second, "2")
	}
	if d := other.Details(); d.Accepted != 2 {
		t.Errorf("the clients of the second port ended each other: %+v", d)
	}
}

func TestUDPEndsAFlowOfTheSameBatch(t *testing.T) {
	server, addr := udpServer(t, "127.0.0.1:0")
	p := forwardUDP(t, UDPConfig{Router: routes{route: routeTo(addr)}, MaxFlows: 1})
	ended, kept := dialPort(t, p, ""), dialPort(t, p, "")
	p.loop.call(func() {
		send(t, ended, "1")
		send(t, kept, "2")
	})
	if got := receive(t, server); string(got) != "2" {
		t.Errorf("got %q", got)
	}
}

// TestUDPFlowsWaitForSockets has a pool that is empty at first.
func TestUDPFlowsWaitForSockets(t *testing.T) {
	server, addr := udpServer(t, "127.0.0.1:0")
	pools := newScarcePools(t)
	p := forwardUDP(t, UDPConfig{Router: routes{route: routeTo(addr)}, Pool: pools.pool, MaxFlows: 2})
	clients := []*net.UDPConn{dialPort(t, p, ""), dialPort(t, p, ""), dialPort(t, p, "")}
	for i, c := range clients { // the first is the third's victim
		for j := range maxHeldDatagrams + 4 {
			send(t, c, fmt.Sprint(i, j))
		}
		eventually(t, p, "waiting", func(d api.PortDetails) bool { return d.Accepted == uint64(i+1) })
	}
	eventually(t, p, "full", func(d api.PortDetails) bool { return d.Dropped >= 3*4 })
	close(pools.fill)
	next := map[byte]int{}
	for range 2 * maxHeldDatagrams {
		msg := receive(t, server)
		if want := fmt.Sprintf("%c %d", msg[0], next[msg[0]]); string(msg) != want {
			t.Fatalf("got %q, want %q", msg, want)
		}
		next[msg[0]]++
	}
	if next['0'] != 0 {
		t.Error("a flow that was ended got its socket")
	}
	p.loop.call(func() {
		if p.waiting != (waitingFlows{}) {
			t.Errorf("still waiting: %+v", p.waiting)
		}
	})
	if d := p.Details(); d.AcceptErrors != 4 { // three waited, one was ended
		t.Errorf("details: %+v", d)
	}
}

func TestUDPEndsWhileFlowsWait(t *testing.T) {
	_, addr := udpServer(t, "127.0.0.1:0")
	pools := newScarcePools(t)
	p := forwardUDP(t, UDPConfig{Router: routes{route: routeTo(addr)}, Pool: pools.pool})
	for range maxWaitingFlows + 2 {
		send(t, dialPort(t, p, ""), strings.Repeat("x", 8000))
	}
	d := eventually(t, p, "full", func(d api.PortDetails) bool { return d.Accepted == maxWaitingFlows+2 })
	if d.Active != maxWaitingFlows {
		t.Errorf("details: %+v", d)
	}
	p.loop.call(func() {
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
		p.loop.call(func() { done = p.waiting.flows == 0 })
		return done
	})
	if extra := len(nstest.LeakedFDs(before)); extra > 2*8 { // the pools' own
		t.Errorf("%d descriptors left", extra)
	}
}

func TestUDPServerThatRefusesAndComesBack(t *testing.T) {
	server, addr := udpServer(t, "127.0.0.1:0")
	p := forwardUDP(t, UDPConfig{Router: routes{route: routeTo(addr)}})
	c := dialPort(t, p, "")
	send(t, c, "1")
	_, first := receiveFrom(t, server)
	server.Close()
	p.loop.call(func() { // in one batch: each is told the refusal of the one before
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
	gone, old := udpServer(t, "127.0.0.1:0")
	gone.Close()
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
	c := dialPort(t, p, "")
	want := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.9"), c.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	send(t, c, "1")
	if _, from := receiveFrom(t, server); from != want {
		t.Errorf("the server saw %s, want %s", from, want)
	}

	taken, _ := udpServer(t, "127.0.0.9:0")
	c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: taken.LocalAddr().(*net.UDPAddr).Port},
		net.UDPAddrFromAddrPort(p.listeners[0].bound))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	send(t, c, "2")
	if _, from := receiveFrom(t, server); from.Addr() != want.Addr() || from.Port() == uint16(c.LocalAddr().(*net.UDPAddr).Port) {
		t.Errorf("the server saw %s", from)
	}
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
	stop := make(chan struct{})
	var clients sync.WaitGroup
	fd := boundUDP(t, loopback4)
	sa, _ := unix.Getsockname(fd)
	for range 4 {
		c, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: sa.(*unix.SockaddrInet4).Port})
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
	close(stop)
	clients.Wait()
	endPools()
	server.Close()
	echoing.Wait()
	unix.Close(fd)
	if leaked := nstest.LeakedFDs(before); len(leaked) > 0 {
		t.Errorf("left open: %v", leaked)
	}
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
