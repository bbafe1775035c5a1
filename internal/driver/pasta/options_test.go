package pasta

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/driver"
)

// fake makes a pasta that only prints these options as its help.
func fake(t *testing.T, options ...string) driver.Flags {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pasta")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho '"+strings.Join(options, "\n")+"'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return flags(map[string]string{binaryFlag: path})
}

// TestOldVersion: the version of March 2023 works, but publishes no ports.
func TestOldVersion(t *testing.T) {
	f := fake(t, required...)
	cfg := config()
	if _, err := New(cfg, f); err != nil {
		t.Fatal(err)
	}
	cfg.Ports = Pesto
	want := `port driver "pesto" requires pasta with --conf-path support (passt >= 2026_05_07.1afd4ed)`
	if _, err := New(cfg, f); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	cfg.Ports = Implicit
	want = `port driver "implicit" requires passt >= 2023_12_04: ` + f.String(binaryFlag) + ` is older, and does not notice the ports of a namespace that it joins`
	if _, err := New(cfg, f); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	f = fake(t, append(required, "--no-copy-routes")...)
	network, err := New(cfg, f)
	if err != nil {
		t.Fatal(err)
	}
	args := network.(*Network).args()
	if !slices.Contains(args, "--tcp-ports=auto") || slices.Contains(args, "--host-lo-to-ns-lo") {
		t.Errorf("args %q", args)
	}
	f = fake(t, "--foreground", "--netns")
	if _, err := New(config(), f); err == nil || !strings.HasPrefix(err.Error(), "pasta is too old: "+f.String(binaryFlag)+" has no --pid") {
		t.Errorf("got %v", err)
	}
}

func TestListener(t *testing.T) {
	for _, tt := range []struct {
		proto, ip string
		ipv6      bool
		want      string
		addrs     string
	}{
		{"tcp", "", false, "--tcp-ports=0.0.0.0/8080:80", "0.0.0.0"},
		{"tcp", "", true, "--tcp-ports=8080:80", "0.0.0.0 ::"},
		{"tcp", "0.0.0.0", true, "--tcp-ports=8080:80", "0.0.0.0 ::"},
		{"tcp", "::", true, "--tcp-ports=::/8080:80", "::"},
		{"udp", "::", true, "--udp-ports=::/8080:80", "::"},
		{"tcp4", "::", true, "--tcp-ports=0.0.0.0/8080:80", "0.0.0.0"},
		{"tcp", "::ffff:127.0.0.1", true, "--tcp-ports=127.0.0.1/8080:80", "127.0.0.1"},
		{"tcp4", "", true, "--tcp-ports=0.0.0.0/8080:80", "0.0.0.0"},
		{"udp6", "", true, "--udp-ports=::/8080:80", "::"},
		{"udp", "127.0.0.1", true, "--udp-ports=127.0.0.1/8080:80", "127.0.0.1"},
		{"tcp6", "::1", true, "--tcp-ports=::1/8080:80", "::1"},
	} {
		cfg := config()
		cfg.IPv6 = tt.ipv6
		p := &Ports{network: &Network{cfg: cfg}}
		l := p.listener(api.PortSpec{Proto: api.Proto(tt.proto), ParentIP: tt.ip, ParentPort: 8080, ChildPort: 80})
		var want []netip.Addr
		for _, s := range strings.Fields(tt.addrs) {
			want = append(want, netip.MustParseAddr(s))
		}
		if l.rule != tt.want || !slices.Equal(l.addrs, want) || (l.proto == unix.IPPROTO_UDP) != strings.HasPrefix(tt.proto, "udp") {
			t.Errorf("%s %s: %+v", tt.proto, tt.ip, l)
		}
	}
}
