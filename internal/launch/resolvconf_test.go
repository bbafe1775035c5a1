package launch

import (
	"net/netip"
	"strings"
	"testing"

	"rootlesskit/internal/driver"
)

func TestResolvConf(t *testing.T) {
	long := strings.Repeat("x", 60) + ".test"
	link := driver.Link{DNS: []netip.Addr{netip.MustParseAddr("10.0.2.1"), netip.MustParseAddr("fd00::1")}}
	const servers = "nameserver 10.0.2.1\nnameserver fd00::1\n"
	for _, tt := range []struct{ name, host, want string }{
		{"no file", "", servers},
		{"name servers alone", "nameserver 192.0.2.1\n", servers},
		{"both", "# by hand\nsearch corp.test  lab.corp.test\nnameserver 192.0.2.1\noptions ndots:2 timeout:1\n",
			"search corp.test lab.corp.test\n" + servers + "options ndots:2 timeout:1\n"},
		{"without a newline at the end", "nameserver 192.0.2.1\nsearch corp.test", "search corp.test\n" + servers},
		{"the last search holds, options add up", "search a.test\noptions rotate\n search b.test # for now\noptions edns0 trust-ad\n",
			"search b.test\n" + servers + "options rotate edns0 trust-ad\n"},
		{"domain is a search of one", "domain corp.test\n", "search corp.test\n" + servers},
		{"comments and empty lines", ";search a.test\n#options rotate\nsearch\noptions ; none\n", servers},
		{"six domains", "search a b c d e f g\n", "search a b c d e f\n" + servers},
		{"256 characters", "search " + strings.Repeat(long+" ", 5) + "\n", "search" + strings.Repeat(" "+long, 3) + "\n" + servers},
	} {
		if got := string(resolvConf(link, []byte(tt.host))); got != tt.want {
			t.Errorf("%s:\n%s\nwant\n%s", tt.name, got, tt.want)
		}
	}
}
