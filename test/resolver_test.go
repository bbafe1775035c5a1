package test

import (
	"strings"
	"testing"
)

// TestResolverOfTheHost: inside, names are found as on the host: with its domains
// to search and its options, by the servers of the moment, one on the host's
// loopback or one that is known by its link-local address.
func TestResolverOfTheHost(t *testing.T) {
	w := newWorld(t)
	w.shell(t, w.outside.PID, "ip addr add fe80::53/64 dev eth0 nodad")
	w.shell(t, w.host, "ip addr add fe80::1/64 dev eth0 nodad")
	server := testdata(t, "nameserver.py")
	runServer(t, w.command(w.outside.PID, "python3", "-I", server, "fe80::53%eth0").Args)
	runServer(t, w.command(w.host, "python3", "-I", server, "127.0.0.53").Args)
	w.shell(t, w.host, `
for server in fe80::53%eth0 127.0.0.53; do
	until dig +tries=1 +timeout=1 +short TXT 1.test @$server | grep -q x; do sleep 0.05; done
done`)
	const script = `
PATH=$PATH:/usr/sbin:/sbin
dir=$(mktemp -d)
trap 'rm -r "$dir"' EXIT
printf 'search corp.test lab.test\nnameserver %s\noptions timeout:3 attempts:4\n' "$1" >"$dir/resolv.conf"
mount --bind "$dir/resolv.conf" /etc/resolv.conf
shift
"$@"`
	const ask = `
grep -v nameserver /etc/resolv.conf
for how in +notcp +tcp; do dig +search $how +short TXT 3 | tr -cd x | wc -c; done`
	const files = "search corp.test lab.test\noptions timeout:3 attempts:4\n"
	for _, c := range []struct{ network, server, want string }{
		{"gvisor-tap-vsock", "fe80::53%eth0", files + "600\n600\n"},
		{"gvisor-tap-vsock", "127.0.0.53", files + "600\n600\n"},
		{"slirp4netns", "127.0.0.53", files},
		{"pasta", "127.0.0.53", files},
	} {
		r := runCmd(t, w.command(w.host, "unshare", "--mount", "sh", "-ec", script, "-", c.server,
			bin("rootlesskit"), "--net="+c.network, "--disable-host-loopback", "--copy-up=/etc", "sh", "-c", ask))
		if !strings.HasPrefix(r.stdout, c.want) {
			t.Errorf("%s, %s:\n%s\nwant\n%s\nstderr: %s", c.network, c.server, r.stdout, c.want, r.stderr)
		}
	}
}
