package gvisor

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// TestBlackHolesBlockNobody: attempts to addresses that never answer, more than
// may wait at a time, do not delay a connection to one that does.
func TestBlackHolesBlockNobody(t *testing.T) {
	s := newSandbox(t)
	// What is sent to nobody over loopback is lost.
	ipIn(t, s.host, "route", "add", "192.0.2.0/24", "dev", "lo")
	accepts(s.host.ListenTCP(t, "tcp", "198.51.100.7:7"), echo)
	inject := newInjector(t, s)
	hole := netip.MustParseAddrPort("192.0.2.1:80")
	pending := s.network.outbound.pending
	child := s.link.IPv4.Addr()
	began := time.Now()
	for n := range 3 * maxPending / 2 {
		syn := synPacket(netip.AddrPortFrom(child, uint16(2000+n)), hole, 1)
		inject.packet(syn)
		if n%128 != 127 { // the device has a queue of bounded length
			continue
		}
		id := stack.TransportEndpointID{
			LocalPort: hole.Port(), LocalAddress: tcpip.AddrFrom4(hole.Addr().As4()),
			RemotePort: uint16(2000 + n), RemoteAddress: tcpip.AddrFrom4(child.As4()),
		}
		eventually(t, "the places to be taken", func() bool {
			// On a busy machine, the first attempts are abandoned before the last have come.
			late := time.Since(began) > 4*time.Second
			if late {
				inject.packet(syn)
			}
			pending.mu.Lock()
			defer pending.mu.Unlock()
			return pending.waiting.Len() == min(n+1, pending.max) || late && pending.m[id] != nil
		})
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
	// Nobody has repeated those SYNs.
	pending.expire(time.Now().Add(5 * time.Second))
	eventually(t, "no attempt left", func() bool {
		pending.mu.Lock()
		defer pending.mu.Unlock()
		return len(pending.m) == 0
	})
}

func TestAttempts(t *testing.T) {
	a := newAttempts(2 * pendingFraction)
	id := func(n uint16) stack.TransportEndpointID { return stack.TransportEndpointID{RemotePort: n} }
	start := time.Now()
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	admit := func(n uint16, seq uint32, second int, want bool) {
		t.Helper()
		if got := a.admit(context.Background(), id(n), seq, at(second)); got != want {
			t.Errorf("attempt %d at %d s: %v", n, second, got)
		}
	}
	canceled := func(n uint16, want bool) {
		t.Helper()
		if got := a.get(id(n)).ctx.Err() != nil; got != want {
			t.Errorf("attempt %d: canceled %v", n, got)
		}
	}
	admit(1, 10, 0, true)
	admit(2, 20, 0, true)
	admit(1, 10, 1, false) // once more
	admit(3, 30, 1, true)
	canceled(1, false)
	canceled(2, true) // silent for the longest
	admit(2, 20, 2, false)
	a.forget(id(2))
	admit(2, 20, 3, true)
	canceled(3, false)
	canceled(1, true)
	admit(3, 31, 4, false) // another connection from the same port
	canceled(3, true)
	admit(4, 40, 4, true)
	admit(5, 50, 4, false) // four are under way
	a.expire(at(7))
	canceled(2, false)
	a.expire(at(9))
	canceled(2, true)
	for n := range uint16(5) {
		a.forget(id(n))
	}
	if a.waiting.Len() != 0 || len(a.m) != 0 {
		t.Errorf("left: %d, %d", a.waiting.Len(), len(a.m))
	}
}
