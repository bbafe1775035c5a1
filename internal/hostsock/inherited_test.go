package hostsock_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/hostsock"
	"rootlesskit/internal/nstest"
	"rootlesskit/internal/sockio"
)

// activated opens a socket as a service manager does.
func activated(t *testing.T, network, ip string, port int) int {
	t.Helper()
	var socket interface {
		File() (*os.File, error)
		Close() error
	}
	address := net.JoinHostPort(ip, fmt.Sprint(port))
	if network[:3] == "udp" {
		pc, err := net.ListenPacket(network, address)
		if err != nil {
			t.Fatal(err)
		}
		socket = pc.(*net.UDPConn)
	} else {
		var cfg net.ListenConfig
		cfg.SetMultipathTCP(false) // not the default of service managers
		l, err := cfg.Listen(t.Context(), network, address)
		if err != nil {
			t.Fatal(err)
		}
		socket = l.(*net.TCPListener)
	}
	defer socket.Close()
	f, err := socket.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return int(f.Fd())
}

func sameSocket(t *testing.T, a, b int) bool {
	t.Helper()
	var st [2]unix.Stat_t
	for i, fd := range []int{a, b} {
		if err := unix.Fstat(fd, &st[i]); err != nil {
			t.Fatal(err)
		}
	}
	return st[0].Ino == st[1].Ino
}

type socket struct{ network, ip string }

// inheritedSockets are sockets that were inherited, and those of them that a port takes.
var inheritedSockets = []struct {
	inherited []socket
	proto     api.Proto
	ip        string
	taken     []int // indices of inherited; nil: a new socket, or the error
	inUse     bool
}{
	{[]socket{{"tcp4", "127.0.0.1"}}, "tcp", "127.0.0.1", []int{0}, false},
	{[]socket{{"tcp4", "127.0.0.1"}}, "tcp4", "127.0.0.1", []int{0}, false},
	{[]socket{{"tcp4", "127.0.0.1"}}, "tcp4", "127.0.0.2", nil, false},
	{[]socket{{"tcp4", "127.0.0.1"}}, "udp4", "127.0.0.1", nil, false},
	{[]socket{{"udp4", "127.0.0.1"}}, "udp", "127.0.0.1", []int{0}, false},
	{[]socket{{"tcp6", "::1"}, {"tcp4", "127.0.0.1"}}, "tcp6", "::1", []int{0}, false},
	// On all addresses: one socket for both families, one each, or one.
	{[]socket{{"tcp", "::"}}, "tcp", "0.0.0.0", []int{0}, false},
	{[]socket{{"tcp", "::"}}, "tcp", "", []int{0}, false},
	{[]socket{{"udp", "::"}}, "udp", "::", []int{0}, false},
	{[]socket{{"tcp4", "0.0.0.0"}, {"tcp6", "::"}}, "tcp", "", []int{0, 1}, false},
	{[]socket{{"tcp4", "0.0.0.0"}}, "tcp", "0.0.0.0", []int{0}, false},
	{[]socket{{"tcp4", "0.0.0.0"}, {"tcp6", "::"}}, "tcp6", "::", []int{1}, false},
	// A socket for both families is none for one.
	{[]socket{{"tcp", "::"}}, "tcp6", "::", nil, true},
	{[]socket{{"tcp", "::"}}, "tcp4", "0.0.0.0", nil, true},
	{[]socket{{"tcp4", "0.0.0.0"}}, "tcp4", "127.0.0.1", nil, true},
}

func TestInheritedSocketsServePorts(t *testing.T) {
	for _, tt := range inheritedSockets {
		t.Run(fmt.Sprint(tt.inherited, tt.proto, tt.ip), func(t *testing.T) {
			port := nstest.FreePort(t)
			var inherited []int
			for _, s := range tt.inherited {
				inherited = append(inherited, activated(t, s.network, s.ip, port))
			}
			sockets, err := hostsock.NewInherited(inherited).Listen(tt.proto, tt.ip, port)
			defer sockio.CloseAll(sockets.FDs)
			if tt.inUse != errors.Is(err, syscall.EADDRINUSE) || (err != nil) != tt.inUse {
				t.Fatal(err)
			}
			if sockets.Shared != (tt.taken != nil) || tt.taken != nil && len(sockets.FDs) != len(tt.taken) {
				t.Fatalf("%+v", sockets)
			}
			for i, want := range tt.taken {
				if !sameSocket(t, sockets.FDs[i], inherited[want]) {
					t.Errorf("socket %d is not the inherited one", i)
				}
			}
		})
	}
}

func TestWhatIsNoPortIsLeftAlone(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer sockio.CloseAll(pair[:])
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(client)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	in := hostsock.NewInherited([]int{pair[0], client, int(null.Fd()), 9999})
	sockets, err := in.Listen("tcp4", "127.0.0.1", nstest.FreePort(t))
	if err != nil || sockets.Shared {
		t.Fatal(sockets, err)
	}
	sockio.CloseAll(sockets.FDs)
	if taken := in.Seal(); len(taken) > 0 {
		t.Error(taken)
	}
}

// TestSeal: afterwards only what has served a port does so again; and never two
// ports at once.
func TestSeal(t *testing.T) {
	first, second := nstest.FreePort(t), nstest.FreePort(t)
	fds := []int{activated(t, "tcp4", "0.0.0.0", first), activated(t, "tcp4", "127.0.0.1", second)}
	in := hostsock.NewInherited(fds)
	listen := func(proto api.Proto, port int, ip string) error {
		sockets, err := in.Listen(proto, ip, port)
		sockio.CloseAll(sockets.FDs)
		return err
	}
	if err := listen("tcp", first, "0.0.0.0"); err != nil {
		t.Fatal(err)
	}
	if err := listen("tcp4", first, "0.0.0.0"); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("another port on the same socket: %v", err)
	}
	if taken := in.Seal(); len(taken) != 1 || taken[0] != fds[0] {
		t.Errorf("taken: %v of %v", taken, fds)
	}
	if err := listen("tcp", first, "0.0.0.0"); err != nil {
		t.Errorf("opening the port again: %v", err)
	}
	if err := listen("tcp4", second, "127.0.0.1"); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a socket that is somebody else's: %v", err)
	}
}
