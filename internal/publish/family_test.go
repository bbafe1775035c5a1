package publish

import (
	"os"
	"testing"

	"rootlesskit/api"
)

func TestWithoutIPv6(t *testing.T) {
	for spec, want := range map[string]string{
		"[::]:8080:80/tcp":           "127.0.0.1:80",
		"[::]:8080:53/udp":           "127.0.0.1:53",
		"[::]:8080:[::1]:80/tcp":     "",
		"[::1]:8080:80/tcp":          "",
		"[2001:db8::1]:8080:80/tcp6": "",
	} {
		parsed, err := api.ParsePortSpec(spec)
		if err != nil {
			t.Fatal(err)
		}
		to, err := Target(parsed)
		if err != nil {
			t.Fatal(err)
		}
		got, err := withoutIPv6(parsed, to)
		if (err == nil) != (want != "") || err == nil && got.String() != want {
			t.Errorf("%s leads to %s, %v, want %q", spec, got, err, want)
		}
	}
	if _, err := os.Stat("/proc/net/if_inet6"); (err == nil) != hasIPv6() {
		t.Errorf("the kernel has IPv6: %v, %v", hasIPv6(), err)
	}
}
