package gvisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/relayed"
	"rootlesskit/internal/netns"
	"rootlesskit/internal/nstest"
	"rootlesskit/internal/sockio"
	"rootlesskit/internal/wire"
)

func TestMain(m *testing.M) { nstest.Main(m, testHandlers, relayed.Handlers) }

// The tests have two namespaces: the child's, and one that stands for the
// host, with addresses of its own, so that nothing depends on the machine.
var (
	hostAddr4   = netip.MustParseAddr("198.51.100.7")
	hostAddr6   = netip.MustParseAddr("2001:db8:7::7")
	clientAddr4 = netip.MustParseAddr("203.0.113.5")
	clientAddr6 = netip.MustParseAddr("2001:db8:113::5")
)

type socketRequest struct{ Family, Type, Protocol int }

const (
	socketMethod    = "gvisortest.socket"
	pingRangeMethod = "gvisortest.pingrange"
)

func testHandlers(_ context.Context, ns *netns.Namespace) wire.Handlers {
	return wire.Handlers{
		socketMethod: func(_ context.Context, msg wire.Message) (any, []int, error) {
			var req socketRequest
			if err := msg.Decode(&req); err != nil {
				return nil, nil, err
			}
			fd, err := hostSocket(req.Family, req.Type, req.Protocol)
			var refused *os.SyscallError
			if errors.As(err, &refused) {
				return refused.Err, nil, nil // the error's number
			}
			return 0, []int{fd}, err
		},
		pingRangeMethod: func(context.Context, wire.Message) (any, []int, error) {
			return nil, nil, os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0)
		},
	}
}

// socketIn makes a socket in a child's namespace.
func socketIn(child *nstest.Child) socketFunc {
	return func(family, kind, protocol int) (int, error) {
		var errno unix.Errno
		fds, err := child.Call(context.Background(), socketMethod, socketRequest{family, kind, protocol}, &errno)
		if err != nil {
			return -1, err
		}
		if errno != 0 {
			return -1, os.NewSyscallError("socket", errno)
		}
		return fds[0], nil
	}
}

type flags map[string]bool

func (f flags) Bool(name string) bool { return f[name] }
func (flags) String(string) string    { return "" }

type sandbox struct {
	t       *testing.T
	host    *nstest.Child
	child   *nstest.Child
	network *Network
	ports   *Ports
	link    driver.Link
}

type option func(*driver.NetworkConfig, flags, *Network)

func withConfig(f func(*driver.NetworkConfig)) option {
	return func(cfg *driver.NetworkConfig, _ flags, n *Network) {
		if n == nil {
			f(cfg)
		}
	}
}

func smallMTU(cfg *driver.NetworkConfig)       { cfg.MTU = 1500 }
func noHostLoopback(cfg *driver.NetworkConfig) { cfg.DisableHostLoopback = true }

// noLinkLocal is --disable-link-local.
func noLinkLocal(_ *driver.NetworkConfig, f flags, _ *Network) { f[DisableLinkLocalFlag] = true }

// newSandbox attaches a network.
func newSandbox(t *testing.T, options ...option) *sandbox {
	t.Helper()
	s := &sandbox{t: t, host: nstest.NewChild(t), child: nstest.NewChild(t)}
	err := netns.Configure(t.Context(), s.host, netns.LinkRequest{Name: "lo", Addrs: []netip.Prefix{
		netip.PrefixFrom(hostAddr4, 32), netip.PrefixFrom(clientAddr4, 32),
		netip.PrefixFrom(hostAddr6, 128), netip.PrefixFrom(clientAddr6, 128),
		netip.MustParsePrefix("169.254.169.254/32"), netip.MustParsePrefix("fd00:ec2::254/128"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	cfg := driver.NetworkConfig{MTU: 65520, CIDR: netip.MustParsePrefix("10.0.2.0/24"), Ifname: "tap0", IPv6: true}
	f := flags{}
	for _, o := range options {
		o(&cfg, f, nil)
	}
	network, err := New(cfg, f)
	if err != nil {
		t.Fatal(err)
	}
	s.network = network.(*Network)
	s.network.socket = socketIn(s.host)
	s.network.resolvers = &resolvers{path: "/dev/null", port: 5353}
	for _, o := range options {
		o(&cfg, f, s.network)
	}
	s.attach()
	return s
}

func (s *sandbox) attach() {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	level := slog.LevelWarn
	if testing.Verbose() {
		level = slog.LevelDebug
	}
	sb := driver.Sandbox{
		PID: s.child.PID, NetnsPath: s.child.NetnsPath(), StateDir: s.t.TempDir(), Child: s.child,
		Log: slog.New(slog.NewTextHandler(s.t.Output(), &slog.HandlerOptions{Level: level})),
	}
	var err error
	if s.link, err = s.network.Attach(ctx, sb); err != nil {
		s.t.Fatal(err)
	}
	ports := s.network.Ports()
	if err := ports.Start(ctx, sb, s.link); err != nil {
		s.t.Fatal(err)
	}
	s.ports = ports.(*Ports)
	s.t.Cleanup(func() {
		cancel()
		within(s.t, time.Minute, "the port driver's end", func() {
			if err := s.ports.Wait(); err != nil {
				s.t.Errorf("port driver: %v", err)
			}
		})
		within(s.t, time.Minute, "the network driver's end", func() {
			if err := s.network.Wait(); err != nil {
				s.t.Errorf("network driver: %v", err)
			}
		})
	})
}

func within(t *testing.T, d time.Duration, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(d):
		b := make([]byte, 1<<20)
		t.Fatalf("%s did not come within %s\n%s", what, d, b[:runtime.Stack(b, true)])
	}
}

// eventually polls a condition.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// dial connects a TCP socket of a namespace, from a source if it is valid.
func dial(t *testing.T, from *nstest.Child, source netip.Addr, to netip.AddrPort) (*net.TCPConn, error) {
	t.Helper()
	sa, family := sockio.Sockaddr(to)
	fd, err := socketIn(from)(family, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if source.IsValid() {
		bindTo, _ := sockio.Sockaddr(netip.AddrPortFrom(source, 0))
		if err := unix.Bind(fd, bindTo); err != nil {
			unix.Close(fd)
			t.Fatal(err)
		}
	}
	if err := unix.Connect(fd, sa); err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "test")
	defer file.Close()
	if err := awaitConnected(file); err != nil {
		return nil, err
	}
	conn, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(60 * time.Second))
	return conn.(*net.TCPConn), nil
}

// awaitConnected waits for the end of a connect(2) in progress.
func awaitConnected(file *os.File) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	_ = file.SetWriteDeadline(time.Now().Add(time.Minute))
	var errno unix.Errno
	err = raw.Write(func(fd uintptr) bool {
		errno = connectState(int(fd))
		return errno != unix.EINPROGRESS
	})
	if err == nil && errno != 0 {
		err = errno
	}
	return err
}

func mustDial(t *testing.T, from *nstest.Child, source netip.Addr, to netip.AddrPort) *net.TCPConn {
	t.Helper()
	conn, err := dial(t, from, source, to)
	if err != nil {
		t.Fatalf("dial %s: %v", to, err)
	}
	return conn
}

// udpIn opens a UDP socket in a namespace.
func udpIn(t *testing.T, child *nstest.Child, address string) *net.UDPConn {
	t.Helper()
	conn := child.ListenUDP(t, "udp", address)
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	return conn
}

// accepts runs a handler for each connection of a listener until it is closed.
func accepts(l *net.TCPListener, handle func(*net.TCPConn)) {
	go func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				handle(c)
			}()
		}
	}()
}

// echo is a handler that sends back what it gets, and carries half-close over.
func echo(c *net.TCPConn) {
	// Without splice(2), whose pipes stay open for reuse.
	_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
	_ = c.CloseWrite()
}

// published opens a port whose host side is in the host's namespace.
func (s *sandbox) published(spec api.PortSpec) io.Closer {
	s.t.Helper()
	child, err := s.ports.childAddr(spec.ChildIP)
	if err != nil {
		s.t.Fatal(err)
	}
	var sockets []*sharedFD
	address := netip.MustParseAddrPort(net.JoinHostPort(spec.ParentIP, fmt.Sprint(spec.ParentPort)))
	sa, family := sockio.Sockaddr(netip.AddrPortFrom(address.Addr().Unmap(), address.Port()))
	kind := unix.SOCK_STREAM
	if spec.Proto[:3] == "udp" {
		kind = unix.SOCK_DGRAM
	}
	fd, err := socketIn(s.host)(family, kind, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	if kind == unix.SOCK_STREAM {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if family == unix.AF_INET6 {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err := unix.Bind(fd, sa); err != nil {
		unix.Close(fd)
		s.t.Fatal(err)
	}
	if kind == unix.SOCK_STREAM {
		if err := unix.Listen(fd, 4096); err != nil {
			s.t.Fatal(err)
		}
		// As a program that is being started has one. It must not keep the port.
		if held, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err == nil {
			s.t.Cleanup(func() { unix.Close(held) })
		}
	}
	shared, err := newSharedFD(fd, "test")
	if err != nil {
		s.t.Fatal(err)
	}
	sockets = append(sockets, shared)
	port, err := s.ports.keep(s.ports.serve(spec, sockets, false, child))
	if err != nil {
		s.t.Fatal(err)
	}
	return port
}

func fileConn(t *testing.T, fd int) net.Conn {
	t.Helper()
	file := os.NewFile(uintptr(fd), "test")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	return conn
}

// withNetwork changes the network before it is attached.
func withNetwork(f func(*Network)) option {
	return func(_ *driver.NetworkConfig, _ flags, n *Network) {
		if n != nil {
			f(n)
		}
	}
}

// pause is the step of a poll.
func pause() { time.Sleep(5 * time.Millisecond) }
