package sockio_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/sockio"
)

// TestAddrs: every form of an address has the same IP address and port.
func TestAddrs(t *testing.T) {
	for given, want := range map[string]struct {
		addr   string
		family int
	}{
		"192.0.2.1:80":            {"192.0.2.1:80", unix.AF_INET},
		"[::ffff:192.0.2.1]:8080": {"192.0.2.1:8080", unix.AF_INET},
		"[2001:db8::1]:65535":     {"[2001:db8::1]:65535", unix.AF_INET6},
		"[fe80::1%7]:1":           {"[fe80::1]:1", unix.AF_INET6},
		"0.0.0.0:0":               {"0.0.0.0:0", unix.AF_INET},
		"[::]:0":                  {"[::]:0", unix.AF_INET6},
	} {
		a := netip.MustParseAddrPort(given)
		raw := sockio.AddrOf(a)
		if got := raw.AddrPort().String(); got != want.addr {
			t.Errorf("%s: AddrOf is %s, want %s", given, got, want.addr)
		}
		if raw.As16() != a.Addr().As16() || raw.Port() != a.Port() {
			t.Errorf("%s: %x, port %d", given, raw.As16(), raw.Port())
		}
		sa, family := sockio.Sockaddr(a)
		if got := sockio.FromSockaddr(sa).String(); got != want.addr || family != want.family || sockio.Family(a.Addr()) != family {
			t.Errorf("%s: Sockaddr is %s of family %d, want %s of %d", given, got, family, want.addr, want.family)
		}
		if v6, ok := sa.(*unix.SockaddrInet6); ok && v6.ZoneId != raw.Scope() {
			t.Errorf("%s: scopes %d and %d", given, v6.ZoneId, raw.Scope())
		}
	}
	if a := sockio.FromSockaddr(&unix.SockaddrUnix{Name: "x"}); a.IsValid() {
		t.Errorf("a Unix socket has the address %s", a)
	}
}

func TestScope(t *testing.T) {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]uint32{"fe80::1": 0, "fe80::1%lo": uint32(lo.Index), "fe80::1%7": 7} {
		if got, err := sockio.Scope(netip.MustParseAddr(address)); got != want || err != nil {
			t.Errorf("%s: interface %d, %v, want %d", address, got, err, want)
		}
	}
	if got, err := sockio.Scope(netip.MustParseAddr("fe80::1%nosuch")); got != 0 || err == nil {
		t.Errorf("a zone that does not exist: interface %d, %v", got, err)
	}
}

func TestParseAddr(t *testing.T) {
	v4 := sockaddr(unix.AF_INET, 8080, "127.0.0.1", 16)
	mapped := sockaddr(unix.AF_INET6, 80, "::ffff:10.0.2.100", 28)
	for _, c := range []struct {
		raw  []byte
		want string
	}{
		{v4, "127.0.0.1:8080"},
		{v4[:15], "invalid AddrPort"},
		{mapped, "[::ffff:10.0.2.100]:80"},
		{mapped[:24], "[::ffff:10.0.2.100]:80"},
		{mapped[:23], "invalid AddrPort"},
		{sockaddr(unix.AF_UNIX, 0, "0.0.0.0", 28), "invalid AddrPort"},
		{nil, "invalid AddrPort"},
	} {
		if got, ok := sockio.ParseAddr(c.raw); got.String() != c.want || ok != got.IsValid() {
			t.Errorf("%v: %s, %t, want %s", c.raw, got, ok, c.want)
		}
	}
}

// sockaddr is a struct sockaddr_in or sockaddr_in6 of a length.
func sockaddr(family, port uint16, ip string, length int) []byte {
	b := binary.NativeEndian.AppendUint16(nil, family)
	b = binary.BigEndian.AppendUint16(b, port)
	addr := netip.MustParseAddr(ip)
	if addr.Is6() {
		b = append(b, 0, 0, 0, 0) // sin6_flowinfo
	}
	b = append(b, addr.AsSlice()...)
	return append(b, make([]byte, length-len(b))...)
}

func FuzzParseAddr(f *testing.F) {
	f.Add(sockaddr(unix.AF_INET, 80, "127.0.0.1", 16))
	f.Add(sockaddr(unix.AF_INET6, 80, "::1", 28))
	f.Add([]byte{unix.AF_UNIX, 0, 'x'})
	f.Fuzz(func(t *testing.T, b []byte) {
		addr, ok := sockio.ParseAddr(b)
		if ok && addr.Port() != binary.BigEndian.Uint16(b[2:]) {
			t.Errorf("%v: %v", b, addr)
		}
	})
}
