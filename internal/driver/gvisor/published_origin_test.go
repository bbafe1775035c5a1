package gvisor

import (
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
)

// TestServersSendFromTheirPublishedPort: also to who has sent nothing. The answer
// comes back.
func TestServersSendFromTheirPublishedPort(t *testing.T) {
	s := newSandbox(t)
	for i, c := range []struct {
		name, parentIP, server string
		to                     string // as the server says
		peer, seenAs           string // as the host says
	}{
		{"IPv4", "198.51.100.7", "10.0.2.100", "203.0.113.5", "203.0.113.5", "198.51.100.7"},
		{"IPv6", "2001:db8:7::7", "fdc8:5a1d:66e7::100", "2001:db8:113::5", "2001:db8:113::5", "2001:db8:7::7"},
		{"any IPv4", "0.0.0.0", "10.0.2.100", "203.0.113.5", "203.0.113.5", ""},
		{"any IPv6", "::", "fdc8:5a1d:66e7::100", "2001:db8:113::5", "2001:db8:113::5", ""},
		{"to the host", "127.0.0.1", "10.0.2.100", "10.0.2.1", "127.0.0.1", "127.0.0.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			port := 8000 + i
			published := s.published(api.PortSpec{Proto: "udp", ParentIP: c.parentIP, ParentPort: port, ChildPort: 53 + i})
			server := udpIn(t, s.child, net.JoinHostPort(c.server, strconv.Itoa(53+i)))
			peer := udpIn(t, s.host, net.JoinHostPort(c.peer, "9999"))
			for range 2 { // without a flow, and with one
				if _, err := server.WriteToUDPAddrPort([]byte("news"), addrPortOf(c.to, 9999)); err != nil {
					t.Fatal(err)
				}
				b := make([]byte, 10)
				n, from, err := peer.ReadFromUDPAddrPort(b)
				if err != nil || string(b[:n]) != "news" || from.Port() != uint16(port) ||
					c.seenAs != "" && from.Addr() != netip.MustParseAddr(c.seenAs) {
					t.Errorf("the peer got %q from %s, %v", b[:n], from, err)
				}
				if _, err := peer.WriteToUDPAddrPort([]byte("answer"), from); err != nil {
					t.Fatal(err)
				}
				n, from, err = server.ReadFromUDPAddrPort(b)
				if err != nil || string(b[:n]) != "answer" || from != addrPortOf(c.to, 9999) {
					t.Errorf("the server got %q from %s, %v", b[:n], from, err)
				}
			}
			published.Close()
			if n := len(s.network.published.origins); n != 0 {
				t.Errorf("%d origins are left", n)
			}
		})
	}
}

// TestServersSendWhereTheirPortHasNoWay: a port that is published on the host's
// loopback does not keep its server from the world.
func TestServersSendWhereTheirPortHasNoWay(t *testing.T) {
	s := newSandbox(t, withConfig(noHostLoopback))
	s.published(api.PortSpec{Proto: "udp", ParentIP: "127.0.0.1", ParentPort: 8000, ChildPort: 53})
	server := udpIn(t, s.child, "10.0.2.100:53")
	peer, loopback := udpIn(t, s.host, "203.0.113.5:9999"), udpIn(t, s.host, "127.0.0.1:9999")
	for _, to := range []string{"10.0.2.1:9999", "203.0.113.5:9999"} {
		if _, err := server.WriteToUDPAddrPort([]byte("news"), netip.MustParseAddrPort(to)); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := peer.ReadFromUDPAddrPort(make([]byte, 10)); err != nil {
		t.Error(err)
	}
	// What was sent to the closed address before has not come.
	raw, err := loopback.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) {
		if _, _, err := unix.Recvfrom(int(fd), make([]byte, 10), unix.MSG_DONTWAIT); err != unix.EAGAIN {
			t.Errorf("the host's loopback was reached: %v", err)
		}
	})
}

// fakeClock gives a table a clock of its own, and returns what moves it on, with the
// upkeep that is due then.
func fakeClock[K comparable, V any](flows *flowTable[K, V]) (pass func(time.Duration)) {
	flows.mu.Lock()
	defer flows.mu.Unlock()
	now := time.Now()
	for e := flows.lru.Front(); e != nil; e = e.Next() {
		e.Value.(*flowEntry[K, V]).used = now
	}
	flows.now = func() time.Time { return now } // called with the lock held
	return func(d time.Duration) {
		flows.mu.Lock()
		now = now.Add(d)
		flows.mu.Unlock()
		flows.expire(now)
	}
}

// has looks for a flow without using it.
func (t *flowTable[K, V]) has(key K) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.m[key] != nil
}

// TestSilentFlowsLive: a server may answer after a long silence.
func TestSilentFlowsLive(t *testing.T) {
	s := newSandbox(t)
	s.published(api.PortSpec{Proto: "udp", ParentIP: "198.51.100.7", ParentPort: 8000, ChildPort: 53})
	server, client := udpIn(t, s.child, "10.0.2.100:53"), udpIn(t, s.host, "203.0.113.5:0")
	if _, err := client.WriteToUDPAddrPort([]byte("?"), addrPortOf("198.51.100.7", 8000)); err != nil {
		t.Fatal(err)
	}
	_, from, err := server.ReadFromUDPAddrPort(make([]byte, 10))
	if err != nil {
		t.Fatal(err)
	}
	flows := s.network.published.flows
	pass := fakeClock(flows)
	pass(time.Hour - 1)
	if _, err := server.WriteToUDPAddrPort([]byte("!"), from); err != nil {
		t.Fatal(err)
	}
	if _, _, err := client.ReadFromUDPAddrPort(make([]byte, 10)); err != nil {
		t.Errorf("the answer after an hour, all but a moment: %v", err)
	}
	key := insideKey{from, netip.MustParseAddrPort("10.0.2.100:53")}
	if pass(time.Hour - 1); !flows.has(key) {
		t.Error("the answer does not count as use of the flow")
	}
	if pass(1); flows.has(key) {
		t.Error("the flow lives after an hour of silence")
	}
}
