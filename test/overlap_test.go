package test

import (
	"strings"
	"testing"
)

// TestOverlap: a host in the network that is laid out inside is told of --cidr,
// once, by a run and by --check.
func TestOverlap(t *testing.T) {
	w := newWorld(t)
	w.shell(t, w.outside.PID, "ip addr add 10.0.2.7/24 dev eth0")
	w.shell(t, w.host, "ip addr add 10.0.2.15/24 dev eth0")
	const advice = "--cidr=10.0.0.0/24"
	for _, network := range []string{"gvisor-tap-vsock", "slirp4netns", "pasta"} {
		for _, c := range []struct {
			args []string
			want int
		}{
			{[]string{"true"}, 1},
			{[]string{"--cidr=10.9.8.0/24", "true"}, 0},
		} {
			args := append([]string{bin("rootlesskit"), "--net=" + network, "--disable-host-loopback"}, c.args...)
			r := runCmd(t, w.command(w.host, args...))
			if got := strings.Count(r.stderr, advice); got != c.want || r.code != 0 {
				t.Errorf("%v: code %d, advice %d times, want %d: %s", args[1:], r.code, got, c.want, r.stderr)
			}
		}
		r := runCmd(t, w.command(w.host, bin("rootlesskit"), "--check", "--net="+network))
		if !strings.Contains(r.stdout, "warning  cidr: the host's own network 10.0.2.0/24 overlaps") || !strings.Contains(r.stdout, advice) {
			t.Errorf("--check --net=%s: %s", network, r.stdout)
		}
	}
}
