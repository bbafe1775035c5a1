package hostsock_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/hostsock"
	"rootlesskit/internal/nstest"
	"rootlesskit/internal/sockio"
)

func TestMain(m *testing.M) { nstest.Main(m, privilegeHandlers) }

// listen opens sockets that are closed with the test.
func listen(t *testing.T, proto api.Proto, ip string, port int) []int {
	t.Helper()
	fds, err := hostsock.Listen(proto, ip, port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sockio.CloseAll(fds) })
	return fds
}

func localAddr(t *testing.T, fd int) string {
	t.Helper()
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return net.IP(sa.Addr[:]).String()
	case *unix.SockaddrInet6:
		return net.IP(sa.Addr[:]).String()
	}
	return fmt.Sprintf("%T", sa)
}

func TestAddresses(t *testing.T) {
	const both = "both" // one socket for TCP, two for UDP
	for _, c := range []struct{ protoSuffix, ip, want string }{
		{"", "", both},
		{"", "0.0.0.0", both},
		{"", "::", both},
		{"", "127.0.0.1", "127.0.0.1"},
		{"", "127.0.0.2", "127.0.0.2"},
		{"", "::1", "::1"},
		{"", "::ffff:127.0.0.1", "127.0.0.1"},
		{"4", "", "0.0.0.0"},
		{"4", "0.0.0.0", "0.0.0.0"},
		{"4", "::", "0.0.0.0"},
		{"4", "127.0.0.1", "127.0.0.1"},
		{"4", "::ffff:127.0.0.1", "127.0.0.1"},
		{"6", "", "::"},
		{"6", "::", "::"},
		{"6", "::1", "::1"},
		{"6", "::1%lo", "::1"},
	} {
		for _, transport := range []string{"tcp", "udp"} {
			proto := transport + c.protoSuffix
			t.Run(proto+" "+c.ip, func(t *testing.T) {
				var got []string
				for _, fd := range listen(t, api.Proto(proto), c.ip, nstest.FreePort(t)) {
					got = append(got, localAddr(t, fd))
				}
				want := c.want
				if want == both {
					want = map[string]string{"tcp": "::", "udp": "0.0.0.0 ::"}[transport]
				}
				if strings.Join(got, " ") != want {
					t.Errorf("listens on %v, want %s", got, want)
				}
			})
		}
	}
}

// The texts are those of package net, which reach clients of the API.
func TestErrors(t *testing.T) {
	taken := nstest.FreePort(t)
	for _, network := range []api.Proto{"tcp4", "udp4"} {
		listen(t, network, "127.0.0.1", taken)
	}
	for _, c := range []struct {
		proto api.Proto
		ip    string
		port  int
		want  string
	}{
		{"tcp4", "127.0.0.1", taken, "listen tcp4 127.0.0.1:%d: bind: address already in use"},
		{"tcp", "127.0.0.1", taken, "listen tcp 127.0.0.1:%d: bind: address already in use"},
		{"tcp", "", taken, "listen tcp :%d: bind: address already in use"},
		{"tcp", "0.0.0.0", taken, "listen tcp 0.0.0.0:%d: bind: address already in use"},
		{"tcp", "::", taken, "listen tcp [::]:%d: bind: address already in use"},
		{"udp", "127.0.0.1", taken, "listen udp 127.0.0.1:%d: bind: address already in use"},
		{"udp", "", taken, "listen udp :%d: bind: address already in use"},
		{"tcp", "192.0.2.1", 8101, "listen tcp 192.0.2.1:%d: bind: cannot assign requested address"},
		{"udp6", "2001:db8::1", 8101, "listen udp6 [2001:db8::1]:%d: bind: cannot assign requested address"},
		{"tcp6", "127.0.0.1", 1, "listen tcp6: address 127.0.0.1: no suitable address found"},
		{"tcp6", "0.0.0.0", 1, "listen tcp6: address 0.0.0.0: no suitable address found"},
		{"udp6", "::ffff:127.0.0.1", 1, "listen udp6: address ::ffff:127.0.0.1: no suitable address found"},
		{"udp4", "::1", 1, "listen udp4: address ::1: no suitable address found"},
		{"tcp", "localhost", 1, "listen tcp: address localhost: invalid IP address"},
		{"tcp", "", 0, "listen tcp: address 0: invalid port"},
		{"tcp", "", 65536, "listen tcp: address 65536: invalid port"},
		{"sctp", "", 1, "listen sctp: unknown network sctp"},
		{"tcp46", "", 1, "listen tcp46: unknown network tcp46"},
		{"tcp6", "fe80::1%nosuch", 8101, `listen tcp6 [fe80::1%%nosuch]:%d: zone "nosuch": route ip+net: no such network interface`},
	} {
		if strings.Contains(c.want, "%d") {
			c.want = fmt.Sprintf(c.want, c.port)
		}
		fds, err := hostsock.Listen(c.proto, c.ip, c.port)
		sockio.CloseAll(fds)
		if err == nil || err.Error() != c.want {
			t.Errorf("%s %q %d: got %v, want %s", c.proto, c.ip, c.port, err, c.want)
		}
		var opErr *net.OpError
		if err != nil && !errors.As(err, &opErr) {
			t.Errorf("%s %q %d: %T is not a *net.OpError", c.proto, c.ip, c.port, err)
		}
	}
}

// TestFamiliesCoexist has one port on both families in either order, and the
// same port again right after it was closed.
func TestFamiliesCoexist(t *testing.T) {
	port := nstest.FreePort(t)
	for _, transport := range []api.Proto{"tcp", "udp"} {
		for range 2 {
			v4, err := hostsock.Listen(transport+"4", "0.0.0.0", port)
			if err != nil {
				t.Fatal(err)
			}
			v6, err := hostsock.Listen(transport+"6", "::", port)
			if err != nil {
				t.Fatal(err)
			}
			sockio.CloseAll(append(v4, v6...))
		}
	}
}

// TestPartialFailure takes the IPv6 half away: the IPv4 socket must not stay.
func TestPartialFailure(t *testing.T) {
	for _, proto := range []api.Proto{"tcp", "udp"} {
		port := nstest.FreePort(t)
		listen(t, proto+"6", "::1", port)
		before := nstest.OpenFDs()
		if fds, err := hostsock.Listen(proto, "", port); err == nil {
			sockio.CloseAll(fds)
			t.Fatalf("%s: listens on a port that is in use", proto)
		}
		if leaked := nstest.LeakedFDs(before); len(leaked) > 0 {
			t.Errorf("%s: left open: %v", proto, leaked)
		}
		listen(t, proto+"4", "", port)
	}
}

// TestListenAgain: connections that this side has ended, and that the kernel
// remembers for a minute (TIME_WAIT), are in nobody's way.
func TestListenAgain(t *testing.T) {
	port := nstest.FreePort(t)
	fds, err := hostsock.Listen("tcp4", "127.0.0.1", port)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[0]), "")
	l, err := net.FileListener(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	client, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	server.Close()
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatalf("the client's end: %v", err)
	}
	client.Close()
	l.Close()
	listen(t, "tcp4", "127.0.0.1", port)
}

func TestAcceptsBothFamilies(t *testing.T) {
	port := nstest.FreePort(t)
	fds, err := hostsock.Listen("tcp", "", port)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[0]), "")
	l, err := net.FileListener(f) // a duplicate
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, host := range []string{"127.0.0.1", "::1"} {
		conn, err := net.Dial("tcp", net.JoinHostPort(host, fmt.Sprint(port)))
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		peer, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		peer.Close()
	}
}

func TestSocketFlags(t *testing.T) {
	for _, proto := range []api.Proto{"tcp", "udp"} {
		for _, fd := range listen(t, proto, "", nstest.FreePort(t)) {
			fl, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
			fdFlags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
			if fl&unix.O_NONBLOCK == 0 || fdFlags&unix.FD_CLOEXEC == 0 {
				t.Errorf("%s: flags %#x, descriptor flags %#x", proto, fl, fdFlags)
			}
		}
	}
}
