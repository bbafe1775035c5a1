package gvisor

import (
	"net"
	"net/netip"
	"sync/atomic"
	"testing"

	"rootlesskit/internal/driver"
)

// TestBlackHolesBlockNobody: attempts to addresses that never answer, more than
// may wait at a time, do not delay a connection to one that does.
func TestBlackHolesBlockNobody(t *testing.T) {
	var sockets atomic.Int32
	s := newSandbox(t, func(_ *driver.NetworkConfig, _ flags, n *Network) {
		if n != nil {
			open := n.socket
			n.socket = func(family, kind, protocol int) (int, error) {
				sockets.Add(1)
				return open(family, kind, protocol)
			}
		}
	})
	// What is sent to nobody over loopback is lost.
	ipIn(t, s.host, "route", "add", "192.0.2.0/24", "dev", "lo")
	server := netip.MustParseAddrPort("198.51.100.7:7")
	var accepted atomic.Int32
	accepts(s.host.ListenTCP(t, "tcp", server.String()), func(c *net.TCPConn) {
		accepted.Add(1)
		echo(c)
	})
	inject := newInjector(t, s)
	hole := netip.MustParseAddrPort("192.0.2.1:80")
	child := s.link.IPv4.Addr()
	for n := range 1536 {
		inject.packet(synPacket(netip.AddrPortFrom(child, uint16(2000+n)), hole, 1))
		if n%128 == 127 { // the device has a queue of bounded length
			eventually(t, "the attempts", func() bool { return sockets.Load() == int32(n+1) })
		}
	}
	for n := range int32(20) { // each is asked for once: no kernel repeats these
		inject.packet(synPacket(netip.AddrPortFrom(child, uint16(4000+n)), server, 1))
		eventually(t, "the connection", func() bool { return accepted.Load() == n+1 })
	}
	expectEcho(t, mustDial(t, s.child, netip.Addr{}, server), "passed")
}
