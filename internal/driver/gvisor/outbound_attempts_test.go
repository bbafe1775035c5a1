package gvisor

import (
	"net/netip"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

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
	accepts(s.host.ListenTCP(t, "tcp", "198.51.100.7:7"), echo)
	inject := newInjector(t, s)
	hole := netip.MustParseAddrPort("192.0.2.1:80")
	child := s.link.IPv4.Addr()
	for n := range 1536 {
		inject.packet(synPacket(netip.AddrPortFrom(child, uint16(2000+n)), hole, 1))
		if n%128 == 127 { // the device has a queue of bounded length
			eventually(t, "the attempts", func() bool { return sockets.Load() == int32(n+1) })
		}
	}
	for range 20 {
		conn := mustDial(t, s.child, netip.Addr{}, netip.MustParseAddrPort("198.51.100.7:7"))
		expectEcho(t, conn, "passed")
		raw, err := conn.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = raw.Control(func(fd uintptr) {
			info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
			if err != nil || info.Total_retrans > 0 {
				t.Errorf("the connection had to be asked for again: %v, %v", info, err)
			}
		})
	}
}
