package bypass

import (
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/driver/bypass/fdswap"
	"rootlesskit/internal/relay"
)

// startShadow listens on a duplicate of the socket that the server gave up, and
// forwards what clients in the namespace connect there to the port in the host.
func (p *port) startShadow(s *fdswap.Socket, n *native) error {
	fd, err := unix.FcntlInt(uintptr(s.FD), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	if err = unix.Listen(fd, shadowBacklog); err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		unix.Close(fd)
		return os.NewSyscallError("listen", err)
	}
	family := unix.AF_INET6
	if p.base.Addr.Addr().Is4() || n.family == unix.AF_INET {
		family = unix.AF_INET
	}
	of := *n
	n.shadow, err = p.driver.ForwardTCP(relay.TCPConfig{
		Listeners: []int{fd},
		Family:    family,
		Pool:      p.driver.hostPool,
		Router: relay.RouteFunc(func(client, _ netip.AddrPort) relay.Route {
			route := p.hostRoute(of, client.Addr().Unmap(), netip.IPv4Unspecified())
			route.Pool = nil
			return route
		}),
	})
	return err
}

const shadowBacklog = 128
