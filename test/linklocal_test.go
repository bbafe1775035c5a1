package test

import "testing"

// TestLinkLocal: a cloud's metadata service is on a link-local address, which
// --disable-host-loopback leaves open. The embedded network can close it.
func TestLinkLocal(t *testing.T) {
	w := newWorld(t)
	w.shell(t, w.outside.PID, "ip addr add 169.254.169.254/32 dev lo")
	w.shell(t, w.host, "ip route add 169.254.0.0/16 via "+neighbour4)
	l := w.outside.ListenTCP(t, "tcp4", "169.254.169.254:80")
	serveText(t, l, "metadata")
	for _, c := range []struct {
		flags []string
		want  string
	}{
		{[]string{"--net=gvisor-tap-vsock"}, "metadata"},
		{[]string{"--net=gvisor-tap-vsock", "--allow-link-local"}, "metadata"},
		{[]string{"--net=gvisor-tap-vsock", "--disable-link-local"}, ""},
		{[]string{"--net=slirp4netns"}, "metadata"},
		{[]string{"--net=pasta"}, "metadata"},
	} {
		args := append(c.flags, "--disable-host-loopback", "curl", "-sS", "-m", "60", "http://169.254.169.254/")
		r := runCmd(t, w.command(w.host, append([]string{bin("rootlesskit")}, args...)...))
		if r.stdout != c.want {
			t.Errorf("%v: %q, want %q: %s", c.flags, r.stdout, c.want, r.stderr)
		}
	}
}
