package test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"rootlesskit/api"
	"rootlesskit/internal/nstest"
)

// TestHelperUDP: UDP ports that slirp4netns would do wrong are answered too: from the
// host's loopback, and two that lead to one server.
func TestHelperUDP(t *testing.T) {
	for _, isolated := range []string{"--disable-host-loopback", "--disable-host-loopback=false"} {
		var args, asked []string
		for _, ip := range []string{"127.0.0.1", "0.0.0.0", "", "::ffff:127.0.0.1"} {
			port := nstest.FreePort(t)
			args = append(args, "-p", (api.PortSpec{Proto: "udp", ParentIP: ip, ParentPort: port, ChildPort: 53}).String())
			asked = append(asked, fmt.Sprintf("127.0.0.1:%d", port))
		}
		args = append([]string{"--net=slirp4netns", "--port-driver=slirp4netns", isolated}, args...)
		k := startKit(t, append(args, "python3", "-B", testdata(t, "peers.py"), "udp/0.0.0.0/53")...)
		for _, to := range asked {
			c, err := net.Dial("udp4", to)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			poll(t, "an answer from "+to+" with "+isolated, func() bool {
				_, _ = c.Write([]byte("hello"))
				_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
				n, _ := c.Read(make([]byte, 100))
				return n > 0
			})
		}
		k.mustCtl(t, "remove-ports", "1", "2", "3", "4")
		k.mustCtl(t, "add-ports", asked[0]+":53/udp")
	}
}

// TestHelperRefusals: ports that could never answer are not published.
func TestHelperRefusals(t *testing.T) {
	for _, pair := range []struct{ net, ports string }{{"slirp4netns", "slirp4netns"}, {"pasta", "pesto"}} {
		k := startKit(t, "--net="+pair.net, "--port-driver="+pair.ports, "--disable-host-loopback", "sleep", "infinity")
		port := fmt.Sprint(":", nstest.FreePort(t), ":")
		for spec, want := range map[string]string{
			port + "127.0.0.1:80/tcp":          "cannot reach loopback addresses of the namespace",
			port + "[::ffff:127.0.0.2]:80/udp": "cannot reach loopback addresses of the namespace",
			"[::]" + port + "80/tcp":           map[string]string{"slirp4netns": "has no IPv6", "pesto": "needs --ipv6"}[pair.ports],
			"[::1]" + port + "80/udp":          map[string]string{"slirp4netns": "has no IPv6", "pesto": "needs --ipv6"}[pair.ports],
		} {
			if r := k.ctl(t, "add-ports", spec); r.code != 1 || !strings.Contains(r.stderr, want) {
				t.Errorf("%s: %s: code %d, %s", pair.ports, spec, r.code, r.stderr)
			}
		}
		if got := k.mustCtl(t, "list-ports", "--json"); got != "" {
			t.Errorf("%s: a port is left: %s", pair.ports, got)
		}
	}
}

// TestAddressFamilies: a port on a given address is open on its family, and a mapped
// address is the IPv4 one, outside and inside.
func TestAddressFamilies(t *testing.T) {
	const mapped = "[::ffff:127.0.0.1]:%d:[::ffff:10.0.2.100]:80/tcp"
	for _, tt := range []struct{ flags, spec, open string }{
		{"--net=pasta --ipv6 --port-driver=pesto", "[::]:%d:80/tcp", "::1"},
		{"--net=pasta --ipv6 --port-driver=pesto", "[::]:%d:80/tcp4", "127.0.0.1"},
		{"--net=pasta --ipv6 --port-driver=pesto", "[::1]:%d:80/tcp", "::1"},
		{"--net=pasta --ipv6 --port-driver=pesto", "127.0.0.1:%d:80/tcp", "127.0.0.1"},
		{"--net=pasta --ipv6 --port-driver=pesto", "0.0.0.0:%d:80/tcp", "127.0.0.1 ::1"},
		{"--net=pasta --port-driver=pesto", mapped, "127.0.0.1"},
		{"--net=slirp4netns --port-driver=slirp4netns", mapped, "127.0.0.1"},
		{"--net=slirp4netns --port-driver=slirp4netns", "0.0.0.0:%d:80/tcp", "127.0.0.1"},
		{"--net=slirp4netns --port-driver=builtin", mapped, "127.0.0.1"},
		{"--net=slirp4netns --port-driver=builtin", "[::1]:%d:80/tcp", "::1"},
		{"--net=slirp4netns --port-driver=builtin", "[::]:%d:80/tcp", "127.0.0.1 ::1"},
		{"--net=gvisor-tap-vsock --port-driver=gvisor-tap-vsock", mapped, "127.0.0.1"},
		{"--net=gvisor-tap-vsock --port-driver=gvisor-tap-vsock", "[::]:%d:80/tcp6", "::1"},
		{"--net=gvisor-tap-vsock --port-driver=gvisor-tap-vsock", "[::1]:%d:10.0.2.100:80/tcp", "::1"},
		{"--net=gvisor-tap-vsock --port-driver=gvisor-tap-vsock", "0.0.0.0:%d:80/tcp", "127.0.0.1 ::1"},
		{"--net=gvisor-tap-vsock --port-driver=bypass4netns", mapped, "127.0.0.1"},
	} {
		t.Run(tt.flags+" "+tt.spec, func(t *testing.T) {
			port := nstest.FreePort(t)
			spec := fmt.Sprintf(tt.spec, port)
			args := append(strings.Fields(tt.flags), "--disable-host-loopback", "-p", spec)
			k := startKit(t, append(args, "busybox", "httpd", "-f", "-p", "[::]:80", "-h", "/etc")...)
			for _, ip := range []string{"127.0.0.1", "::1"} {
				at := net.JoinHostPort(ip, fmt.Sprint(port))
				if strings.Contains(tt.open, ip) {
					get(t, "http://"+at+"/passwd")
				} else if c, err := net.Dial("tcp", at); err == nil {
					c.Close()
					t.Errorf("%s is open", at)
				}
			}
			want, err := api.ParsePortSpec(spec)
			if err != nil {
				t.Fatal(err)
			}
			var got api.PortStatus
			if err := json.Unmarshal([]byte(k.mustCtl(t, "list-ports", "--json")), &got); err != nil || got.Spec != want {
				t.Errorf("listed as %v, %v", got.Spec, err)
			}
		})
	}
}

// TestEmbeddedIPv6: the embedded network's ports are open on IPv6, also where the
// namespace has none; the clients are seen as the gateway then. Docker is told of it.
func TestEmbeddedIPv6(t *testing.T) {
	client := netip.MustParseAddrPort("[" + neighbour6 + "]:40001")
	for flag, want := range map[string]string{"--ipv6": client.String(), "--ipv6=false": "10.0.2.1:40001"} {
		w := newWorld(t)
		k := w.run(t, 1, "--net=gvisor-tap-vsock", "--port-driver=gvisor-tap-vsock", flag, "--disable-host-loopback",
			"--publish=[::]:8080:80/tcp6", "--publish=[::]:8080:80/udp6", "--publish=0.0.0.0:8080:80/tcp4",
			"python3", testdata(t, "peers.py"), "tcp/0.0.0.0/80", "udp/0.0.0.0/80", "tcp6/::/80", "udp6/::/80")
		for _, proto := range []string{"tcp", "udp"} {
			if got := w.ask(t, proto, client, endpoint(host6, 8080)); got != want {
				t.Errorf("%s: the %s server sees %q, want %q", flag, proto, got, want)
			}
		}
		if info := k.mustCtl(t, "info"); !strings.Contains(info, "tcp6") || !strings.Contains(info, "udp6") {
			t.Errorf("%s: %s", flag, info)
		}
	}
}
