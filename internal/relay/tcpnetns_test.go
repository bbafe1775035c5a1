package relay

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/netns"
	"rootlesskit/internal/nstest"
	"rootlesskit/internal/sockio"
)

// childTCPPool has sockets of a child's namespace.
func childTCPPool(t testing.TB, space *nstest.Child, family int) func(int) *Pool {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	pool := NewPool(ctx, 0, func(ctx context.Context, n int) ([]int, error) {
		return netns.Sockets(ctx, space, netns.SocketRequest{Family: family, Type: unix.SOCK_STREAM, Count: n, Transparent: true})
	}, nil)
	t.Cleanup(func() { cancel(); pool.Wait() })
	return func(int) *Pool { return pool }
}

func TestIntoANamespace(t *testing.T) {
	space := nstest.NewChild(t)
	for name, server := range map[string]struct {
		network, address string
		family           int
	}{
		"IPv4": {"tcp4", "127.0.0.1:80", unix.AF_INET},
		"IPv6": {"tcp6", "[::1]:80", unix.AF_INET6},
	} {
		t.Run(name, func(t *testing.T) {
			seen := make(chan net.Addr, 1)
			serveOn(t, space.ListenTCP(t, server.network, server.address), func(c *net.TCPConn) {
				seen <- c.RemoteAddr()
				echo(c)
			})
			target := netip.MustParseAddrPort(server.address)
			_, addr := forwardTo(t, TCPConfig{
				Family: server.family,
				Pool:   childTCPPool(t, space, server.family),
				Router: routes{route: func(netip.AddrPort, netip.AddrPort) Route { return Route{Target: target} }},
			})
			c := dial(t, addr)
			sendAndEcho(t, c, "hello")
			if from := (<-seen).(*net.TCPAddr); !from.IP.IsLoopback() {
				t.Errorf("the server saw %v", from)
			}
		})
	}
}

// A source that is foreign to the namespace can be bound: IP_TRANSPARENT was set
// where there is the capability.
func TestForeignSource(t *testing.T) {
	space := nstest.NewChild(t)
	source := netip.MustParseAddrPort("203.0.113.7:5555")
	p, addr := forwardTo(t, TCPConfig{
		Pool: childTCPPool(t, space, unix.AF_INET),
		Router: routes{route: func(netip.AddrPort, netip.AddrPort) Route {
			return Route{Target: netip.MustParseAddrPort("127.0.0.1:80"), Source: source}
		}},
	})
	dial(t, addr)
	var bound netip.AddrPort
	until(t, "the socket of the namespace", func() bool {
		for _, part := range p.parts {
			do(t, part.loop, func() {
				if c := part.conns.first; c != nil {
					bound = sockio.LocalAddr(int(c.side[child].fd))
				}
			})
		}
		return bound.IsValid()
	})
	if bound != source {
		t.Errorf("bound to %v, want %v", bound, source)
	}
}
