package gvisor

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/nstest"
)

// eachSocket calls f for the host's sockets of all connections, in the loop.
func (s *sandbox) eachSocket(f func(fd int)) {
	l := s.network.loop
	l.mail.Call(func() {
		for h := range l.set.Handlers() {
			if h, ok := h.(*hostTCP); ok {
				f(h.fd)
			}
		}
	})
}

func (s *sandbox) connections() (n int) {
	s.eachSocket(func(int) { n++ })
	return n
}

// TestPeersThatVanish: the connections of a peer of the host that vanished without a
// packet end, published and outbound. What vanishes inside is in package translate.
func TestPeersThatVanish(t *testing.T) {
	for name, published := range map[string]bool{"published": true, "outbound": false} {
		t.Run(name, func(t *testing.T) {
			s := newSandbox(t)
			manyConnections(t, s, published, hostAddr6)
			s.eachSocket(func(fd int) {
				if got := keepAliveOf(fd); got != "true 15 15 9" {
					t.Errorf("keepalive: %s", got)
				}
			})
			ipIn(t, s.host, "link", "set", "lo", "down")
			s.eachSocket(askOften)
			eventually(t, "the end of all connections", func() bool { return s.connections() == 0 })
		})
	}
}

// keepAliveOf is what a socket does about silent peers.
func keepAliveOf(fd int) string {
	on, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE)
	idle, _ := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE)
	interval, _ := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL)
	count, _ := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT)
	return fmt.Sprintf("%v %d %d %d", on != 0, idle, interval, count)
}

// askOften makes a socket ask a silent peer after a second, once.
func askOften(fd int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 1)
}

// manyConnections makes connections to an address of the host.
func manyConnections(t *testing.T, s *sandbox, published bool, address netip.Addr) {
	const conns = 200
	from, listen := s.child, s.host
	to := netip.AddrPortFrom(address, 80)
	at := to.String()
	if published {
		s.published(api.PortSpec{Proto: "tcp", ParentIP: address.String(), ParentPort: 80, ChildPort: 80})
		from, listen, at = s.host, s.child, "[::]:80"
	}
	var serving sync.WaitGroup
	t.Cleanup(serving.Wait)
	accepts(listen.ListenTCP(t, "tcp", at), func(c *net.TCPConn) {
		serving.Add(1)
		defer serving.Done()
		_ = c.SetKeepAlive(false)
		ended := context.AfterFunc(t.Context(), func() { c.Close() }) // the peer is gone
		defer ended()
		echo(c)
	})
	for range conns {
		expectEcho(t, mustDial(t, from, netip.Addr{}, to), "here")
	}
	eventually(t, "all connections", func() bool { return s.connections() == conns })
}

// ipIn runs ip(8) in a namespace.
func ipIn(t *testing.T, space *nstest.Child, args ...string) string {
	t.Helper()
	return runIn(t, space, append([]string{"/sbin/ip"}, args...)...)
}

// runIn runs a program in a namespace.
func runIn(t *testing.T, space *nstest.Child, command ...string) string {
	t.Helper()
	out, err := exec.Command("nsenter", append([]string{"--preserve-credentials", "--user", "--net",
		fmt.Sprintf("--target=%d", space.PID)}, command...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: %s", command, err, out)
	}
	return string(out)
}
