package drivertest_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/drivertest"
	"rootlesskit/internal/hostsock"
	"rootlesskit/internal/netns"
	"rootlesskit/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// TestSuite runs the suite on the simplest driver that can pass the TCP half.
func TestSuite(t *testing.T) {
	drivertest.RunPorts(t, func(t *testing.T) drivertest.Setup {
		sb, child := drivertest.Sandbox(t)
		return drivertest.Setup{Ports: &reference{}, Sandbox: sb, Child: child}
	})
}

// reference has two goroutines a connection and asks the child for each socket.
type reference struct {
	ctx   context.Context
	child driver.Sandbox
	ports sync.WaitGroup
}

func (r *reference) Start(ctx context.Context, sb driver.Sandbox, _ driver.Link) error {
	r.ctx, r.child = ctx, sb
	return nil
}

func (r *reference) Info() api.PortDriverInfo {
	return api.PortDriverInfo{Driver: "reference", Protos: []string{"tcp", "tcp4", "tcp6", "udp", "udp4", "udp6"}}
}

func (r *reference) Wait() error {
	<-r.ctx.Done()
	r.ports.Wait()
	return nil
}

func (r *reference) Forward(_ context.Context, spec api.PortSpec) (io.Closer, error) {
	fds, err := hostsock.Listen(spec.Proto, spec.ParentIP, spec.ParentPort)
	if err != nil {
		return nil, err
	}
	p := &port{r: r, target: target(spec)}
	p.ctx, p.cancel = context.WithCancel(r.ctx)
	for _, fd := range fds {
		if strings.HasPrefix(spec.Proto, "udp") {
			p.serveUDP(fd)
			continue
		}
		f := os.NewFile(uintptr(fd), "listener")
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			panic(err)
		}
		context.AfterFunc(p.ctx, func() { l.Close() })
		p.wg.Go(func() { p.accept(l.(*net.TCPListener)) })
	}
	r.ports.Go(p.wg.Wait)
	return p, nil
}

func target(spec api.PortSpec) netip.AddrPort {
	for _, ip := range []string{spec.ChildIP, spec.ParentIP} {
		if a, err := netip.ParseAddr(ip); err == nil && a != netip.IPv4Unspecified() {
			if a.IsUnspecified() {
				a = netip.IPv6Loopback()
			}
			return netip.AddrPortFrom(a, uint16(spec.ChildPort))
		}
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(spec.ChildPort))
}

type port struct {
	r       *reference
	target  netip.AddrPort
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	details struct{ accepted, refused, in, out atomic.Uint64 }
}

func (p *port) Close() error {
	p.cancel()
	p.wg.Wait()
	return nil
}

func (p *port) accept(l *net.TCPListener) {
	defer l.Close()
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			return
		}
		p.details.accepted.Add(1)
		p.wg.Go(func() { p.relay(c) })
	}
}

func (p *port) relay(c *net.TCPConn) {
	defer c.Close()
	s, err := p.dial()
	if err != nil {
		p.details.refused.Add(1)
		_ = c.SetLinger(0)
		return
	}
	defer s.Close()
	stop := context.AfterFunc(p.ctx, func() { c.Close(); s.Close() })
	defer stop()
	var wg sync.WaitGroup
	half := func(to, from *net.TCPConn) {
		if _, err := io.Copy(struct{ io.Writer }{to}, from); err != nil {
			_ = c.SetLinger(0)
			_ = s.SetLinger(0)
			c.Close()
			s.Close()
		}
		_ = to.CloseWrite()
	}
	wg.Go(func() { half(c, s) })
	wg.Go(func() { half(s, c) })
	wg.Wait()
}

func (p *port) dial() (*net.TCPConn, error) {
	family := unix.AF_INET
	if p.target.Addr().Is6() {
		family = unix.AF_INET6
	}
	fds, err := netns.Sockets(p.ctx, p.r.child.Child, netns.SocketRequest{Family: family, Type: unix.SOCK_STREAM, Count: 1})
	if err != nil {
		return nil, err
	}
	_ = unix.SetNonblock(fds[0], false)
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(p.target.Port()), Addr: [4]byte{127, 0, 0, 1}}
	if family == unix.AF_INET {
		sa = &unix.SockaddrInet4{Port: int(p.target.Port()), Addr: p.target.Addr().As4()}
	} else {
		sa = &unix.SockaddrInet6{Port: int(p.target.Port()), Addr: p.target.Addr().As16()}
	}
	f := os.NewFile(uintptr(fds[0]), "conn")
	defer f.Close()
	if err := unix.Connect(fds[0], sa); err != nil {
		return nil, err
	}
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}
