package netns

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestListeners(t *testing.T) {
	for _, c := range []struct {
		network, address string
		want             []string
	}{
		{"tcp4", "127.0.0.1:0", []string{"127.0.0.1"}},
		{"tcp4", "0.0.0.0:0", []string{"0.0.0.0"}},
		{"tcp6", "[::1]:0", []string{"::1"}},
		{"tcp6", "[::]:0", []string{"::"}},
		{"tcp", "[::]:0", []string{"0.0.0.0", "::"}},
		{"udp4", "127.0.0.1:0", []string{"127.0.0.1"}},
		{"udp4", "0.0.0.0:0", []string{"0.0.0.0"}},
		{"udp6", "[::1]:0", []string{"::1"}},
		{"udp6", "[::]:0", []string{"::"}},
		{"udp", "[::]:0", []string{"0.0.0.0", "::"}},
	} {
		t.Run(c.network+" "+c.address, func(t *testing.T) {
			proto, port := listen(t, c.network, c.address)
			got, err := Listeners(proto, port)
			if err != nil {
				t.Fatal(err)
			}
			var want []netip.Addr
			for _, s := range c.want {
				want = append(want, netip.MustParseAddr(s))
			}
			if !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func listen(t *testing.T, network, address string) (proto int, port uint16) {
	t.Helper()
	if network[:3] == "udp" {
		c, err := net.ListenPacket(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return unix.IPPROTO_UDP, netip.MustParseAddrPort(c.LocalAddr().String()).Port()
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return unix.IPPROTO_TCP, netip.MustParseAddrPort(l.Addr().String()).Port()
}

// A connected UDP socket is a client's, or serves one client alone.
func TestListenersLeaveOutConnectedSockets(t *testing.T) {
	c, err := net.Dial("udp4", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got, err := Listeners(unix.IPPROTO_UDP, netip.MustParseAddrPort(c.LocalAddr().String()).Port())
	if err != nil || len(got) != 0 {
		t.Errorf("got %v, %v; want none", got, err)
	}
}

func FuzzParseDiag(f *testing.F) {
	m := make([]byte, diagMessageLen+8)
	m[0], m[5], m[diagMessageLen], m[diagMessageLen+2] = unix.AF_INET6, 80, 5, diagSKV6Only
	f.Add(m)
	f.Add(m[:diagMessageLen])
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, a := range parseDiag(b, 80) {
			if !a.IsValid() {
				t.Errorf("invalid address of %x", b)
			}
		}
	})
}
