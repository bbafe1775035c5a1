package gvisor

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"

	"rootlesskit/api"
	"rootlesskit/internal/nstest"
)

// keepAliveOf is what a relay's two sides do about silent peers.
func keepAliveOf(r *relay) (host, inside string) {
	_ = r.raw.Control(func(fd uintptr) {
		on, _ := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE)
		idle, _ := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPIDLE)
		interval, _ := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPINTVL)
		count, _ := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPCNT)
		host = fmt.Sprintf("%v %d %d %d", on != 0, idle, interval, count)
	})
	var idle tcpip.KeepaliveIdleOption
	var interval tcpip.KeepaliveIntervalOption
	_ = r.ep.GetSockOpt(&idle)
	_ = r.ep.GetSockOpt(&interval)
	count, _ := r.ep.GetSockOptInt(tcpip.KeepaliveCountOption)
	inside = fmt.Sprintf("%v %.0f %.0f %d", r.ep.SocketOptions().GetKeepAlive(),
		time.Duration(idle).Seconds(), time.Duration(interval).Seconds(), count)
	return host, inside
}

// eachRelay calls f for all relays of a group.
func (g *relayGroup) eachRelay(f func(*relay)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for r := range g.relays {
		f(r)
	}
}

func (g *relayGroup) running() (n int) {
	g.eachRelay(func(*relay) { n++ })
	return n
}

// TestPeersThatVanish: the connections of a peer that vanished without a packet
// end, whichever side it was on.
func TestPeersThatVanish(t *testing.T) {
	for _, c := range []struct {
		name, gone string
		address    netip.Addr
	}{
		{"the client", "host", hostAddr4},
		{"the server", "child", hostAddr6},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSandbox(t)
			group := manyConnections(t, s, c.address)
			if c.gone == "host" {
				ipIn(t, s.host, "link", "set", "lo", "down")
			} else {
				ipIn(t, s.child, "link", "set", s.link.Ifname, "down")
			}
			group.eachRelay(askOften)
			eventually(t, "the end of all connections", func() bool { return group.running() == 0 })
		})
	}
}

// manyConnections makes connections to an address of the host, whose relays are those
// of the group.
func manyConnections(t *testing.T, s *sandbox, address netip.Addr) *relayGroup {
	const conns = 200
	to := netip.AddrPortFrom(address, 80)
	port := s.published(api.PortSpec{Proto: "tcp", ParentIP: address.String(), ParentPort: 80, ChildPort: 80})
	group := tcpPortOf(port).relays
	var serving sync.WaitGroup
	t.Cleanup(serving.Wait)
	accepts(s.child.ListenTCP(t, "tcp", "[::]:80"), func(c *net.TCPConn) {
		serving.Add(1)
		defer serving.Done()
		_ = c.SetKeepAlive(false)
		ended := context.AfterFunc(t.Context(), func() { c.Close() }) // the peer is gone
		defer ended()
		echo(c)
	})
	for range conns {
		expectEcho(t, mustDial(t, s.host, netip.Addr{}, to), "here")
	}
	eventually(t, "all connections", func() bool { return group.running() == conns })
	group.eachRelay(func(r *relay) {
		const want = "true 15 15 9"
		if host, inside := keepAliveOf(r); host != want || inside != want {
			t.Errorf("keepalive: host %s, inside %s, want %s", host, inside, want)
		}
	})
	return group
}

// askOften makes both sides of a relay ask a silent peer after a second, once.
func askOften(r *relay) {
	setKeepAlive(r.ep, time.Second, time.Second, 1)
	_ = r.raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 1)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 1)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 1)
	})
}

// ipIn runs ip(8) in a namespace.
func ipIn(t *testing.T, space *nstest.Child, args ...string) string {
	t.Helper()
	out, err := exec.Command("nsenter", append([]string{"--preserve-credentials", "--user", "--net",
		fmt.Sprintf("--target=%d", space.PID), "/sbin/ip"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %v: %v: %s", args, err, out)
	}
	return string(out)
}
