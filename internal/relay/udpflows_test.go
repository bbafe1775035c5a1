package relay

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/netns"
	"rootlesskit/internal/nstest"
	"rootlesskit/internal/sockio"
)

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
	p.loop.mail.Call(func() { p.loop.start = p.loop.start.Add(-d) })
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
	p.loop.mail.Call(func() {
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
	p.loop.mail.Call(func() {
		if p.waiting != (waitingFlows{}) {
			t.Errorf("still waiting: %+v", p.waiting)
		}
	})
	if d := p.Details(); d.AcceptErrors != 4 { // three waited, one was ended
		t.Errorf("details: %+v", d)
	}
}

// TestUDPFirstBurst: all that a client sends before its flow has a socket arrives.
func TestUDPFirstBurst(t *testing.T) {
	server, addr := udpServer(t, "127.0.0.1:0")
	pools := newScarcePools(t)
	p := forwardUDP(t, UDPConfig{Router: routes{route: routeTo(addr)}, Pool: pools.pool})
	c := dialPort(t, p, "")
	var sent [][]byte
	for i := range 60 {
		sent = append(sent, bytes.Repeat([]byte{byte(i)}, 1200))
		send(t, c, string(sent[i]))
	}
	eventually(t, p, "held", func(api.PortDetails) (held bool) {
		p.loop.mail.Call(func() { held = p.waiting.bytes == 60*1200 })
		return held
	})
	close(pools.fill)
	expect(t, server, sent)
}
