package relay

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/netns"
	"rootlesskit/internal/nstest"
	"rootlesskit/internal/sockio"
)

// keepAliveOf is SO_KEEPALIVE of a socket with its idle time, interval and probes.
func keepAliveOf(fd int) string {
	on, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE)
	idle, _ := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE)
	interval, _ := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL)
	count, _ := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT)
	return fmt.Sprint(on, idle, interval, count)
}

// eachConn runs f on the loop of every connection of a port.
func eachConn(t *testing.T, p *TCPPort, f func(*tcpConn)) {
	t.Helper()
	for _, part := range p.parts {
		do(t, part.loop, func() {
			for c := part.conns.first; c != nil; c = c.next {
				f(c)
			}
		})
	}
}

// dialIn connects to an address of 127.0.0.1 inside a namespace.
func dialIn(t *testing.T, space *nstest.Child, to netip.AddrPort) {
	t.Helper()
	fds, err := netns.Sockets(t.Context(), space, netns.SocketRequest{Family: unix.AF_INET, Type: unix.SOCK_STREAM, Count: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sockio.CloseAll(fds) })
	if err := sockio.Connect(fds[0], to); err != 0 && err != unix.EINPROGRESS {
		t.Fatalf("connect %s: %v", to, err)
	}
}

// Clients or servers that vanish without a packet: their network goes down. What
// the relay waits for is found by the kernel's keepalive, whose times are first
// shown to be those of package net, and then shortened.
func TestVanishedPeers(t *testing.T) {
	const conns = 200
	for number, vanishing := range []string{client: "client", child: "server"} {
		t.Run(vanishing, func(t *testing.T) {
			outside, space := nstest.NewChild(t), nstest.NewChild(t)
			serveOn(t, space.ListenTCP(t, "tcp4", "127.0.0.1:80"), func(c *net.TCPConn) {
				_ = c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 1})
				echo(c)
			})
			l := outside.ListenTCP(t, "tcp4", "127.0.0.1:0")
			addr := l.Addr().(*net.TCPAddr).AddrPort()
			p, err := newEngine(t).ForwardTCP(TCPConfig{
				Listeners: []int{dupListener(t, l)},
				Pool:      childTCPPool(t, space, unix.AF_INET),
				Router: routes{route: func(netip.AddrPort, netip.AddrPort) Route {
					return Route{Target: netip.MustParseAddrPort("127.0.0.1:80")}
				}},
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = p.Close() })
			for range conns {
				dialIn(t, outside, addr)
			}
			until(t, "all connections", func() bool { return opened(t, p) == conns })
			eachConn(t, p, func(c *tcpConn) {
				for i, name := range []string{client: "client", child: "server"} {
					if got := keepAliveOf(int(c.side[i].fd)); got != "1 15 15 9" {
						t.Errorf("the socket to the %s has the keepalive %s", name, got)
					}
				}
			})
			setLoopback(t, []*nstest.Child{client: outside, child: space}[number], "down")
			eachConn(t, p, func(c *tcpConn) {
				fd := int(c.side[number].fd)
				_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 1)
				_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 1)
				_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 1)
			})
			until(t, "no connection is left", func() bool { return p.Details().Active == 0 })
		})
	}
}

// opened counts the connections that the server has accepted.
func opened(t *testing.T, p *TCPPort) (n int) {
	t.Helper()
	eachConn(t, p, func(c *tcpConn) {
		if c.opening == nil {
			n++
		}
	})
	return n
}

// dupListener returns a listener's socket as a port takes it.
func dupListener(t *testing.T, l *net.TCPListener) int {
	t.Helper()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0) // which package net has set
	return fd
}

func setLoopback(t *testing.T, space *nstest.Child, state string) {
	t.Helper()
	out, err := exec.Command("nsenter", "--preserve-credentials", "--user", "--net", fmt.Sprintf("--target=%d", space.PID),
		"/sbin/ip", "link", "set", "lo", state).CombinedOutput()
	if err != nil {
		t.Fatalf("setting lo %s: %v: %s", state, err, out)
	}
}
