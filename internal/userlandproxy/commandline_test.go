package userlandproxy

import (
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const usual = "/usr/bin/docker-proxy -proto tcp -host-ip 127.0.0.1 -host-port 8080 -container-ip 172.17.0.2 -container-port 80"

// cmdline is the text of /proc/PID/cmdline for arguments without spaces.
func cmdline(args string) string { return strings.ReplaceAll(args, " ", "\x00") + "\x00" }

func TestParseCommandLine(t *testing.T) {
	with := func(from, to string) string { return strings.Replace(usual, from, to, 1) }
	want := commandLine{unix.IPPROTO_TCP, 8080, netip.MustParseAddrPort("172.17.0.2:80")}
	udp := want
	udp.proto = unix.IPPROTO_UDP
	six := want
	six.container = netip.MustParseAddrPort("[fd17::2]:80")
	for args, want := range map[string]commandLine{
		usual:                                     want,
		usual + " -use-listen-fd":                 want,
		with("-proto", "-use-listen-fd -proto"):   want,
		with("/usr/bin/", ""):                     want,
		with(" -proto tcp", ""):                   want,
		with("-container-ip ", "--container-ip="): want,
		with("-host-port ", "-host-port="):        want,
		with("tcp", "udp"):                        udp,
		with("172.17.0.2", "fd17::2"):             six,
		with("172.17.0.2", "::ffff:172.17.0.2"):   want,
		usual + " -container-port 81":             {want.proto, want.hostPort, netip.MustParseAddrPort("172.17.0.2:81")},
	} {
		if got, ok := parseCommandLine(cmdline(args)); !ok || got != want {
			t.Errorf("%s: got %v %v, want %v", args, got, ok, want)
		}
	}
}

func TestNoProxysCommandLine(t *testing.T) {
	with := func(from, to string) string { return strings.Replace(usual, from, to, 1) }
	for _, args := range []string{
		"",
		"docker-proxy",
		with("docker-proxy", "docker-proxies"),
		with("docker-proxy", "docker-proxy/socat"),
		with("docker-proxy", "socat docker-proxy"),
		with("tcp", "sctp"),
		with("-host-port 8080 ", ""),
		with("8080", "0"),
		with("8080", "65536"),
		with("-container-ip 172.17.0.2 ", ""),
		with("172.17.0.2", ""),
		with("172.17.0.2", "172.17.0"),
		with("172.17.0.2", "fe80::1%eth0"),
		with("172.17.0.2", "localhost"),
		with(" -container-port 80", ""),
		with(" -container-port 80", " -container-port"),
		with(" -container-port 80", " -container-port -1"),
	} {
		if got, ok := parseCommandLine(cmdline(args)); ok {
			t.Errorf("%q is taken for %v", args, got)
		}
	}
}

// FuzzParseCommandLine: whatever a process writes there does no harm, and what is
// read of it is whole.
func FuzzParseCommandLine(f *testing.F) {
	for _, seed := range []string{usual, usual + " -use-listen-fd", "docker-proxy -- = -=", "docker-proxy -container-ip", ""} {
		f.Add(cmdline(seed))
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, ok := parseCommandLine(text)
		if !ok {
			return
		}
		if !c.container.IsValid() || c.container.Port() == 0 || c.container.Addr().Zone() != "" || c.container.Addr().Is4In6() || c.hostPort == 0 {
			t.Errorf("%q is read as %+v", text, c)
		}
		if !strings.Contains(strings.SplitN(text, "\x00", 2)[0], program) {
			t.Errorf("%q is no proxy's", text)
		}
	})
}
