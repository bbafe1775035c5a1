package publish

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"rootlesskit/internal/netns"
	"rootlesskit/internal/nstest"
)

// restartTest is a UDP port with clients, and a server that comes and goes.
type restartTest struct {
	*remoteTest
	clients []*net.UDPConn
	to      netip.AddrPort         // the port
	seen    map[int]netip.AddrPort // by client: as what the server saw it
	server  *net.UDPConn           // nil while it is away
}

// newRestartTest publishes one port on an address of the outside; its clients have
// another.
func newRestartTest(t *testing.T, r *remoteTest, outside, target string, clients int) *restartTest {
	t.Helper()
	s := &restartTest{remoteTest: r, to: netip.MustParseAddrPort(outside), seen: map[int]netip.AddrPort{}}
	r.publish(t, "udp", r.outside.ListenUDP(t, "udp", outside), target)
	for range clients {
		s.clients = append(s.clients, r.outside.ListenUDP(t, "udp", netip.AddrPortFrom(s.to.Addr(), 0).String()))
	}
	return s
}

func (s *restartTest) send(t *testing.T, client int, msg string) {
	t.Helper()
	if _, err := s.clients[client].WriteToUDPAddrPort([]byte(msg), s.to); err != nil {
		t.Fatal(err)
	}
}

// ask sends one datagram, which the server has to get and to answer.
func (s *restartTest) ask(t *testing.T, client int, msg string) {
	t.Helper()
	s.send(t, client, msg)
	_ = s.server.SetReadDeadline(time.Now().Add(time.Minute))
	buf := make([]byte, 100)
	for { // those of the gap may come as well
		n, from, err := s.server.ReadFromUDPAddrPort(buf)
		if err != nil {
			t.Fatalf("client %d: the server does not get %q: %v", client, msg, err)
		}
		if string(buf[:n]) != msg {
			continue
		}
		if was, served := s.seen[client]; served && was != from {
			t.Errorf("client %d was moved from %s to %s", client, was, from)
		}
		s.seen[client] = from
		if _, err := s.server.WriteToUDPAddrPort([]byte(msg), from); err != nil {
			t.Fatalf("client %d: the server cannot answer %s: %v", client, from, err)
		}
		break
	}
	_ = s.clients[client].SetReadDeadline(time.Now().Add(time.Minute))
	for {
		n, _, err := s.clients[client].ReadFromUDPAddrPort(buf)
		if err != nil {
			t.Fatalf("client %d is not answered: %v", client, err)
		}
		if string(buf[:n]) == msg {
			return
		}
	}
}

// TestUDPServerRestarts: whoever sends while the server is away, or for the first
// time then, is answered when it is back, at the first datagram, and looks the same
// to it as before.
func TestUDPServerRestarts(t *testing.T) {
	gateways := []netip.Addr{netip.MustParseAddr("10.0.2.2"), netip.MustParseAddr("fd00::2")}
	for _, c := range []struct {
		name, listen, outside, target string
		gateways                      []netip.Addr
	}{
		{"on all, without a network", "0.0.0.0:53", "203.0.113.7:8053", "127.0.0.1:53", []netip.Addr{}},
		{"on all addresses", "0.0.0.0:53", "203.0.113.7:8053", "127.0.0.1:53", gateways},
		{"on all, IPv6", "[::]:53", "[2001:db8::7]:8053", "[::1]:53", gateways},
		{"on loopback", "127.0.0.1:53", "203.0.113.7:8053", "127.0.0.1:53", gateways},
		{"on one address", "10.0.2.100:53", "203.0.113.7:8053", "127.0.0.1:53", gateways},
		{"on all, without a default route", "0.0.0.0:53", "203.0.113.7:8053", "127.0.0.1:53", nil},
		{"of a child address", "0.0.0.0:53", "203.0.113.7:8053", "10.0.2.100:53", gateways},
		{"for loopback clients", "0.0.0.0:53", "127.0.0.1:8053", "127.0.0.1:53", gateways},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newRestartTest(t, newRoutedTest(t, c.gateways), c.outside, c.target, 10)
			for round := range 5 {
				// Each time there are more who know the port, and one new one in the gap.
				for i := range min(2*round+2, len(s.clients)) {
					s.send(t, i, "anybody?")
				}
				s.server = s.child.ListenUDP(t, "udp", c.listen)
				for i := range s.clients {
					s.ask(t, i, fmt.Sprintf("round %d of client %d", round, i))
				}
				s.server.Close()
			}
		})
	}
}

// newRoutedTest is newRemoteTest with default routes inside.
func newRoutedTest(t *testing.T, gateways []netip.Addr) *remoteTest {
	t.Helper()
	if gateways != nil && len(gateways) == 0 {
		return newRemoteTestIn(t, nstest.NewChild(t), Config{})
	}
	r := newRemoteTest(t)
	if gateways != nil {
		addGateways(t, r.child, gateways)
	}
	return r
}

func addGateways(t *testing.T, c *nstest.Child, gateways []netip.Addr) {
	t.Helper()
	if err := netns.Configure(t.Context(), c, netns.LinkRequest{Name: "tap0", Gateways: gateways}); err != nil {
		t.Fatal(err)
	}
}
