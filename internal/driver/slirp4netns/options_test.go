package slirp4netns

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestOptions(t *testing.T) {
	cfg := config()
	cfg.IPv6, cfg.DisableHostLoopback = true, true
	o, err := newOptions(cfg, flags(map[string]string{"slirp4netns-sandbox": "auto", "slirp4netns-seccomp": "true"}))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"--mtu=65520", "--cidr=10.0.2.0/24", "--disable-host-loopback", "--enable-ipv6", "--enable-sandbox", "--enable-seccomp"}
	if got := o.args(cfg); !slices.Equal(got, want) {
		t.Errorf("args %q", got)
	}
	cfg.Detached = true
	if o, err = newOptions(cfg, flags(map[string]string{"slirp4netns-sandbox": "auto"})); err != nil || o.sandbox {
		t.Errorf("a sandbox that is chosen with a detached namespace: %v, %v", o.sandbox, err)
	}
}

func TestOldVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "slirp4netns")
	help := "#!/bin/sh\necho '-c, --configure -e, --exit-fd=FD -r, --ready-fd=FD -m, --mtu=MTU --cidr=CIDR --disable-host-loopback --api-socket=PATH'\n"
	if err := os.WriteFile(path, []byte(help), 0o755); err != nil {
		t.Fatal(err)
	}
	want := "slirp4netns seems older than v0.4.0: " + path + " has no --userns-path"
	if _, err := New(config(), flags(map[string]string{"slirp4netns-binary": path})); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func FuzzDecodeID(f *testing.F) {
	for _, answer := range []string{
		`{"return": {"id": 42}}`, `{"return": {}}`, `{"return": null}`, `{}`, ``, `[`,
		`{"error": {"desc": "bad request: add_hostfwd: slirp_add_hostfwd failed"}}`,
	} {
		f.Add([]byte(answer))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		if id, err := decodeID(answer); err != nil && id != 0 {
			t.Errorf("%d with %v", id, err)
		}
	})
}
