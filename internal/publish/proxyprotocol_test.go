package publish

import (
	"encoding/hex"
	"net/netip"
	"testing"
)

func TestProxyHeader(t *testing.T) {
	const start = "0d0a0d0a000d0a515549540a21"
	for _, c := range []struct{ client, local, want string }{
		{"203.0.113.7:5555", "198.51.100.1:80", "11000c" + "cb007107" + "c6336401" + "15b3" + "0050"},
		{"[2001:db8::7]:5555", "[2001:db8::1]:443", "210024" +
			"20010db8000000000000000000000007" + "20010db8000000000000000000000001" + "15b3" + "01bb"},
		{"[::ffff:203.0.113.7]:1", "[::ffff:198.51.100.1]:2", "11000c" + "cb007107" + "c6336401" + "0001" + "0002"},
		{"203.0.113.7:1", "[2001:db8::1]:2", "210024" +
			"00000000000000000000ffffcb007107" + "20010db8000000000000000000000001" + "0001" + "0002"},
	} {
		got := hex.EncodeToString(proxyHeader(netip.MustParseAddrPort(c.client), netip.MustParseAddrPort(c.local)))
		if got != start+c.want {
			t.Errorf("%s to %s: got\n%s, want\n%s", c.client, c.local, got, start+c.want)
		}
	}
}
