package gvisor

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"

	"rootlesskit/internal/driver"
	"rootlesskit/internal/nstest"
	"rootlesskit/internal/sockio"
)

// allowPings lets a namespace open ping sockets.
func allowPings(t *testing.T, child *nstest.Child) {
	t.Helper()
	if _, err := child.Call(t.Context(), pingRangeMethod, struct{}{}, nil); err != nil {
		t.Fatalf("setting net.ipv4.ping_group_range: %v", err)
	}
}

// pingConn opens a connected ping socket in a namespace.
func pingConn(t *testing.T, from *nstest.Child, to netip.Addr) net.Conn {
	t.Helper()
	sa, family := sockio.Sockaddr(netip.AddrPortFrom(to, 0))
	proto := unix.IPPROTO_ICMP
	if to.Is6() {
		proto = unix.IPPROTO_ICMPV6
	}
	fd, err := socketIn(from)(family, unix.SOCK_DGRAM, proto)
	if err != nil {
		t.Fatal(err)
	}
	if err := queueErrors(fd, family); err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, sa); err != nil {
		t.Fatal(err)
	}
	return fileConn(t, fd)
}

// ping sends an echo request and waits for its reply.
func ping(conn net.Conn, to netip.Addr, seq uint16, size int) error {
	message := make([]byte, echoLen+size)
	message[0] = 8
	wantReply := byte(0)
	if to.Is6() {
		message[0], wantReply = 128, 129
	}
	binary.BigEndian.PutUint16(message[6:], seq)
	for i := range size {
		message[echoLen+i] = byte(i)
	}
	if _, err := conn.Write(message); err != nil {
		return err
	}
	reply := make([]byte, 1<<16)
	n, err := conn.Read(reply)
	if err != nil {
		return err
	}
	if n != len(message) || reply[0] != wantReply || binary.BigEndian.Uint16(reply[6:]) != seq || string(reply[echoLen:n]) != string(message[echoLen:]) {
		return errors.New("another message came back")
	}
	if to.Is4() && checksum.Checksum(reply[:n], 0) != 0xffff {
		return errors.New("bad checksum")
	}
	return nil
}

// sums reports whether the kernel gets the checksum of a message right that a ping socket
// sends over IPv6. Linux 5.10 does not if it is large, and drops it, also on loopback.
func sums(t *testing.T, space *nstest.Child, size int) bool {
	t.Helper()
	err := ping(pingConn(t, space, netip.IPv6Loopback()), netip.IPv6Loopback(), 1, size)
	if err == nil {
		return true
	}
	counted := strings.Fields(runIn(t, space, "/bin/grep", "Icmp6InCsumErrors", "/proc/net/snmp6"))
	if !errors.Is(err, os.ErrDeadlineExceeded) || len(counted) != 2 || counted[1] == "0" {
		t.Fatalf("ping ::1 with %d bytes: %v; %v", size, err, counted)
	}
	t.Logf("this kernel gets the checksum wrong of %d bytes to ::1, so none are sent to other IPv6 addresses", size)
	return false
}

// TestPing allows for one message that is lost on the way, as by any network.
func TestPing(t *testing.T) {
	lost := 0
	for _, mtu := range []int{65520, 1500} {
		s := newSandbox(t, withConfig(func(cfg *driver.NetworkConfig) { cfg.MTU = mtu }))
		allowPings(t, s.host)
		allowPings(t, s.child)
		large := sums(t, s.host, 60000)
		for _, to := range []netip.Addr{hostAddr4, hostAddr6, s.network.plan.gateway4, s.network.plan.gateway6, s.network.plan.dns4} {
			conn := pingConn(t, s.child, to)
			for seq, size := range []int{0, 56, 1472, 4000, 60000} { // with the small MTU, also in fragments
				if size == 60000 && to.Is6() && !large {
					continue
				}
				err := ping(conn, to, uint16(seq), size)
				if errors.Is(err, os.ErrDeadlineExceeded) && lost == 0 {
					lost++
					_ = conn.SetDeadline(time.Now().Add(time.Minute))
					err = ping(conn, to, uint16(seq), size)
				}
				if err != nil {
					t.Errorf("ping %s with %d bytes: %v", to, size, err)
				}
			}
		}
	}
}

// TestPingIsNeverForged pings what nobody answers for.
func TestPingIsNeverForged(t *testing.T) {
	s := newSandbox(t, withConfig(noHostLoopback), noLinkLocal)
	allowPings(t, s.child)
	expect := func(to string, want error) {
		t.Helper()
		addr := netip.MustParseAddr(to)
		conn := pingConn(t, s.child, addr)
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		for _, size := range []int{56, 3000} {
			if err := ping(conn, addr, 1, size); !errors.Is(err, want) {
				t.Errorf("ping %s: %v, want %v", to, err, want)
			}
		}
	}
	// The host does not let its users ping.
	expect("198.51.100.7", unix.EHOSTUNREACH)
	expect("2001:db8:7::7", unix.EACCES)
	allowPings(t, s.host)
	expect("192.0.2.99", unix.ENETUNREACH)
	expect("2001:db8:dead::1", unix.ENETUNREACH)
	expect("169.254.169.254", unix.EHOSTUNREACH)
	expect("fd00:ec2::254", unix.EACCES)
}

// TestTimeToLive sees the gateway as the first hop.
func TestTimeToLive(t *testing.T) {
	s := newSandbox(t)
	server := udpIn(t, s.host, "198.51.100.7:7")
	go echoUDP(server)
	to := netip.MustParseAddrPort("198.51.100.7:7")
	for ttl, want := range map[int]error{1: unix.EHOSTUNREACH, 2: nil, 200: nil} {
		conn := connectUDP(t, s.child, to)
		raw, err := conn.(*net.UDPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TTL, ttl) })
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, want) {
			t.Errorf("ttl %d: %v, want %v", ttl, err, want)
		}
	}
}
