package netns_test

import (
	"encoding/binary"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"net"
	"rootlesskit/internal/netns"
	"rootlesskit/internal/nstest"
	"rootlesskit/internal/wire"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func TestSocketsBelongToTheNamespace(t *testing.T) {
	child := nstest.NewChild(t)
	server := child.ListenTCP(t, "tcp4", "127.0.0.1:80")
	fds, err := netns.Sockets(t.Context(), child, netns.SocketRequest{
		Family: unix.AF_INET, Type: unix.SOCK_STREAM, Count: 2, Transparent: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		defer unix.Close(fd)
		err := unix.Connect(fd, &unix.SockaddrInet4{Port: 80, Addr: [4]byte{127, 0, 0, 1}})
		if err != nil && err != unix.EINPROGRESS {
			t.Fatalf("connect: %v", err)
		}
		conn, err := server.Accept()
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
}

// TestUDPSocketsHavePortsOfTheirOwn connects many sockets to one server: among
// a thousand random ports some would be equal, if they could.
func TestUDPSocketsHavePortsOfTheirOwn(t *testing.T) {
	child := nstest.NewChild(t)
	ports := map[int]bool{}
	for range 4 {
		fds, err := netns.Sockets(t.Context(), child, netns.SocketRequest{
			Family: unix.AF_INET, Type: unix.SOCK_DGRAM, Count: wire.MaxFDs,
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			defer unix.Close(fd)
			if err := unix.Connect(fd, &unix.SockaddrInet4{Port: 80, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
				t.Fatal(err)
			}
			sa, err := unix.Getsockname(fd)
			if err != nil {
				t.Fatal(err)
			}
			port := sa.(*unix.SockaddrInet4).Port
			if ports[port] {
				t.Errorf("two sockets have port %d", port)
			}
			ports[port] = true
		}
	}
}

func TestSocketsRejectsACountOutOfRange(t *testing.T) {
	child := nstest.NewChild(t)
	for _, count := range []int{0, 254} {
		_, err := netns.Sockets(t.Context(), child, netns.SocketRequest{Family: unix.AF_INET, Type: unix.SOCK_STREAM, Count: count})
		if err == nil {
			t.Errorf("count %d was accepted", count)
		}
	}
}

// openTAP makes a TAP device that the test's end takes away.
func openTAP(t *testing.T, child *nstest.Child, req netns.TAPRequest) int {
	t.Helper()
	tap, err := netns.OpenTAP(t.Context(), child, req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(tap) })
	return tap
}

func TestTAPWithAddressAndRoute(t *testing.T) {
	child := nstest.NewChild(t)
	openTAP(t, child, netns.TAPRequest{
		Name: "tap0", VnetHdr: true, Offloads: unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6,
	})
	err := netns.Configure(t.Context(), child, netns.LinkRequest{
		Name: "tap0", MTU: 65520,
		Addrs:      []netip.Prefix{netip.MustParsePrefix("10.0.2.100/24"), netip.MustParsePrefix("fd00::100/64")},
		Gateways:   []netip.Addr{netip.MustParseAddr("10.0.2.2"), netip.MustParseAddr("fd00::2")},
		Neighbours: []netip.Addr{netip.MustParseAddr("10.0.2.2"), netip.MustParseAddr("fd00::2")},
		PeerMAC:    net.HardwareAddr{2, 0, 0, 0, 0, 9},
	})
	if err != nil {
		t.Fatal(err)
	}
	child.ListenTCP(t, "tcp4", "10.0.2.100:80")
	child.ListenTCP(t, "tcp6", "[fd00::100]:80")
	out, err := exec.CommandContext(t.Context(), "nsenter", "--preserve-credentials", "-U", "-n", "-t", strconv.Itoa(child.PID),
		"sh", "-c", "ip -o link show tap0; ip route; ip -6 route; ip neigh").CombinedOutput()
	for _, want := range []string{" mtu 65520 ", "default via 10.0.2.2 dev tap0", "default via fd00::2 dev tap0",
		"10.0.2.2 dev tap0 lladdr 02:00:00:00:00:09 PERMANENT", "fd00::2 dev tap0 lladdr 02:00:00:00:00:09 PERMANENT"} {
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("no %q in %s (%v)", want, out, err)
		}
	}
}

// TestTAPHoldsABurst: two thousand connections that send at the same time lose nothing
// before the reader has its turn.
func TestTAPHoldsABurst(t *testing.T) {
	const burst = 2000
	child := nstest.NewChild(t)
	tap := openTAP(t, child, netns.TAPRequest{Name: "tap0"})
	err := netns.Configure(t.Context(), child, netns.LinkRequest{
		Name: "tap0", Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.2.100/24")},
		Neighbours: []netip.Addr{netip.MustParseAddr("10.0.2.2")}, PeerMAC: net.HardwareAddr{2, 0, 0, 0, 0, 9},
	})
	if err != nil {
		t.Fatal(err)
	}
	fds, err := netns.Sockets(t.Context(), child, netns.SocketRequest{Family: unix.AF_INET, Type: unix.SOCK_DGRAM, Count: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	to := &unix.SockaddrInet4{Addr: [4]byte{10, 0, 2, 2}, Port: 9}
	for i := range burst {
		if err := unix.Sendto(fds[0], binary.BigEndian.AppendUint16(nil, uint16(i)), 0, to); err != nil {
			t.Fatalf("datagram %d: %v", i, err)
		}
	}
	for i := 0; i < burst; {
		frame := make([]byte, 2048)
		n, err := unix.Read(tap, frame)
		if err != nil {
			t.Fatalf("after %d of %d datagrams: %v", i, burst, err)
		}
		if frame = frame[:n]; n < 44 || frame[12] != 8 || frame[13] != 0 || frame[23] != unix.IPPROTO_UDP {
			continue // the kernel's own: multicast memberships, router solicitations
		}
		if got := binary.BigEndian.Uint16(frame[42:]); got != uint16(i) {
			t.Fatalf("datagram %d came in place of %d", got, i)
		}
		i++
	}
}

// TestCongestionOfDefaultRoutes: one that the kernel does not have is left out.
func TestCongestionOfDefaultRoutes(t *testing.T) {
	for congestion, want := range map[string]string{"reno": " congctl reno", "nosuch": ""} {
		t.Run(congestion, func(t *testing.T) {
			child := nstest.NewChild(t)
			openTAP(t, child, netns.TAPRequest{Name: "tap0"})
			err := netns.Configure(t.Context(), child, netns.LinkRequest{
				Name: "tap0", Congestion: congestion,
				Addrs:    []netip.Prefix{netip.MustParsePrefix("10.0.2.100/24"), netip.MustParsePrefix("fd00::100/64")},
				Gateways: []netip.Addr{netip.MustParseAddr("10.0.2.2"), netip.MustParseAddr("fd00::2")},
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, args := range []string{"ip route show default", "ip -6 route show default"} {
				out, err := exec.CommandContext(t.Context(), "nsenter", "--preserve-credentials", "-U", "-n",
					"-t", strconv.Itoa(child.PID), "sh", "-c", args).CombinedOutput()
				if err != nil || !strings.Contains(string(out), "default via") ||
					strings.Contains(string(out), "congctl") != (want != "") || !strings.Contains(string(out), want) {
					t.Errorf("%s: %q in %s (%v)", args, want, out, err)
				}
			}
		})
	}
}

// TestAddressesAreUsableAtOnce: the kernel adds the route that makes an IPv6 address the
// namespace's own a moment after the address, on a busy machine much later.
func TestAddressesAreUsableAtOnce(t *testing.T) {
	for range 20 {
		child := nstest.NewChild(t)
		openTAP(t, child, netns.TAPRequest{Name: "tap0"})
		for name, addrs := range map[string][]string{"lo": {"2001:db8::1/128", "2001:db8::2/128"}, "tap0": {"fd00::100/64", "fd00::101/64"}} {
			req := netns.LinkRequest{Name: name}
			for _, a := range addrs {
				req.Addrs = append(req.Addrs, netip.MustParsePrefix(a))
			}
			if err := netns.Configure(t.Context(), child, req); err != nil {
				t.Fatal(err)
			}
			fds, err := netns.Sockets(t.Context(), child, netns.SocketRequest{Family: unix.AF_INET6, Type: unix.SOCK_DGRAM, Count: len(addrs)})
			if err != nil {
				t.Fatal(err)
			}
			for i, fd := range fds {
				to := req.Addrs[i].Addr()
				if err := unix.Connect(fd, &unix.SockaddrInet6{Port: 9, Addr: to.As16()}); err != nil {
					t.Errorf("%s of %s: %v", to, name, err)
				} else if sa, _ := unix.Getsockname(fd); sa.(*unix.SockaddrInet6).Addr != to.As16() {
					t.Errorf("%s of %s is reached as %v", to, name, sa)
				}
				unix.Close(fd)
			}
		}
	}
}
