package test

import (
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rootlesskit/api"
)

// nginxConf has three workers.
func nginxConf(t *testing.T, listen ...string) string {
	t.Helper()
	dir := t.TempDir()
	conf := "user root; daemon off; worker_processes 3; pid " + dir + "/pid; error_log stderr;\nevents {}\nhttp { access_log off;\n"
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		conf += kind + "_temp_path " + dir + "/" + kind + ";\n"
	}
	conf += "server {\n"
	for _, l := range listen {
		conf += "listen " + l + ";\n"
	}
	addr := "set $shown $remote_addr; if ($remote_addr ~ :) { set $shown \"[$remote_addr]\"; }" +
		" if ($remote_addr ~ \"^::ffff:(.*)$\") { set $shown $1; }"
	conf += addr + " location / { return 200 \"<$shown:$remote_port>\"; } } }\n"
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

const nodeServer = `require("http").createServer((q, r) => {
	const a = q.socket.remoteAddress.replace("::ffff:", ""), p = q.socket.remotePort
	r.end(a.includes(":") ? "<[" + a + "]:" + p + ">" : "<" + a + ":" + p + ">")
}).listen(80)`

func nginx(t *testing.T, listen ...string) []string {
	return []string{"nginx", "-p", t.TempDir(), "-c", nginxConf(t, listen...)}
}

// bypassServer is a server that is served natively.
type bypassServer struct {
	name    string
	command []string
	flags   []string
	at      []netip.AddrPort
	both    bool // with isolation and without; else one of the two
}

func bypassServers(t *testing.T) []bypassServer {
	binds := func(mode string) []string { return []string{"python3", "-B", testdata(t, "binds.py"), mode} }
	return []bypassServer{
		{name: "python", command: binds("plain"), at: []netip.AddrPort{at4}, both: true},
		{name: "go", command: []string{bin("tool"), "serve", ":80"}, at: []netip.AddrPort{at4, at6}, both: true},
		{name: "node", command: []string{"node", "-e", nodeServer}, at: []netip.AddrPort{at4, at6}},
		{name: "nginx", command: nginx(t, "80"), at: []netip.AddrPort{at4}},
		{name: "nginx-reuseport", command: nginx(t, "80 reuseport"), at: []netip.AddrPort{at4}},
		{name: "nginx-6-reuseport", command: nginx(t, "[::]:80 ipv6only=off reuseport"), at: []netip.AddrPort{at4, at6}, both: true},
		{name: "nginx-both", command: nginx(t, "80 reuseport", "[::]:80 reuseport"), at: []netip.AddrPort{at4, at6}},
		{name: "loopback", command: binds("loopback"), at: []netip.AddrPort{at4}},
		{name: "dual", command: binds("dual"), at: []netip.AddrPort{at4, at6}},
		{name: "v6only", command: binds("v6only"), at: []netip.AddrPort{at6}},
		{name: "both", command: binds("both"), at: []netip.AddrPort{at4, at6}},
		{name: "duplicated", command: binds("duplicated"), at: []netip.AddrPort{at4}},
		{name: "epoll", command: binds("epoll"), at: []netip.AddrPort{at4}},
		{name: "thread", command: binds("thread"), at: []netip.AddrPort{at4}},
		{name: "fork-after", command: binds("fork_after"), at: []netip.AddrPort{at4}},
		{name: "executed", command: binds("executed"), at: []netip.AddrPort{at4}},
		{name: "hidden", command: binds("hidden"), at: []netip.AddrPort{at4}},
		{name: "workers", command: binds("workers"), at: []netip.AddrPort{at4}},
		{name: "timer", command: binds("timer"), at: []netip.AddrPort{at4}},
		{name: "pidns", command: binds("plain"), flags: []string{"--pidns"}, at: []netip.AddrPort{at4}},
	}
}

// TestBypassServers has servers of all kinds, which see their real clients and
// are served by no one of ours.
func TestBypassServers(t *testing.T) {
	for i, c := range bypassServers(t) {
		isolation := []string{"--disable-host-loopback=false", "--disable-host-loopback"}
		if !c.both {
			isolation = isolation[i%2:][:1]
		}
		for _, isolated := range isolation {
			t.Run(c.name+isolated, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				k := w.startNative(t, c.at[0], append(append(append(nativeFlags[:4:4], isolated), c.flags...), c.command...)...)
				for range 20 {
					for _, at := range c.at {
						if _, err := w.get(t, at, 0); err != nil {
							t.Errorf("%s: %v", at, err)
						}
					}
				}
				if state, why := k.portState(t, 1); state != api.PortNative {
					t.Errorf("the port is %s: %s", state, why)
				}
				self := "127.0.0.1"
				if c.at[0].Addr().Is6() {
					self = "::1"
				}
				if out := w.inside(k, "bash", "-c", "exec 3<>/dev/tcp/"+self+"/80; printf 'GET / HTTP/1.0\r\n\r\n' >&3; cat <&3"); !strings.Contains(out, "<") {
					t.Errorf("a client in the namespace got %q", out)
				}
			})
		}
	}
}

func TestBypassKeepsWhatTheServerSet(t *testing.T) {
	at := freeAddress(t)
	for mode, want := range map[string]string{
		"options":       "options: 100000 1 77 1 True",
		"close_on_exec": "before: False\nbound to " + at[strings.Index(at, ":")+1:] + "\nafter: False",
	} {
		k := startKit(t, "--net=gvisor-tap-vsock", "--port-driver=bypass4netns", "-p", at+":80/tcp", "python3", "-B", testdata(t, "binds.py"), mode)
		poll(t, mode, func() bool { return strings.Contains(k.output.String(), want) })
		k.terminate(t)
		k.await(t)
	}
}

// TestBypassReload reloads nginx under load: each request is answered.
func TestBypassReload(t *testing.T) {
	for _, listen := range []string{"80", "80 reuseport", "[::]:80 ipv6only=off reuseport"} {
		t.Run(listen, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			command := nginx(t, listen)
			k := w.startNative(t, at4, append(nativeFlags[:4:4], command...)...)
			failures := 0
			for i := range 300 {
				if i%75 == 10 {
					if out := w.shell(t, w.host, "kill -HUP $(cat "+filepath.Dir(command[4])+"/pid)"); out != "" {
						t.Log(out)
					}
				}
				if _, err := w.get(t, at4, 0); err != nil {
					failures++
					t.Log(i, err)
				}
			}
			if state, why := k.portState(t, 1); failures > 0 || state != api.PortNative {
				t.Errorf("%d of 300 requests failed, the port is %s: %s", failures, state, why)
			}
		})
	}
}

// TestBypassRedis asks redis who its client is.
func TestBypassRedis(t *testing.T) {
	w := newWorld(t)
	k := newKit(t, append(nativeFlags[:4:4], "redis-server", "--port", "80", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "")...)
	w.launch(t, k)
	poll(t, "redis, and its client's address", func() bool {
		c, err := w.dial(t, "tcp", netip.AddrPortFrom(netip.MustParseAddr(neighbour4), 0), at4)
		if err != nil {
			return false
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(c, "CLIENT INFO\r\n")
		answer := make([]byte, 1000)
		n, _ := c.Read(answer)
		return strings.Contains(string(answer[:n]), "addr="+c.LocalAddr().String())
	})
	if state, why := k.portState(t, 1); state != api.PortNative {
		t.Errorf("the port is %s: %s", state, why)
	}
}

// TestBypassIperf has a server on all addresses, which ends.
func TestBypassIperf(t *testing.T) {
	w := newWorld(t)
	k := newKit(t, append(nativeFlags[:4:4], "iperf3", "-s", "-1", "-p", "80", "--forceflush")...)
	w.launch(t, k)
	poll(t, "iperf3 to listen", func() bool { return strings.Contains(k.output.String(), "Server listening") })
	poll(t, "iperf3", func() bool { state, _ := k.portState(t, 1); return state == api.PortNative })
	w.shell(t, w.outside.PID, "iperf3 -c "+host4+" -p 8080 -n 50M -R")
	if code := k.await(t); code != 0 {
		t.Errorf("code %d", code)
	}
}

// answers reports whether a server on this host answers.
func answers(url string) bool {
	resp, err := http.Get(url)
	if err == nil {
		resp.Body.Close()
	}
	return err == nil
}

// answersNatively waits for a native answer of a server on this host.
func answersNatively(t *testing.T, k *kit, url string) {
	t.Helper()
	poll(t, "an answer of "+url, func() bool { return answers(url) })
	if state, why := k.portState(t, 1); state != api.PortNative {
		t.Errorf("the port is %s: %s\n%s", state, why, k.output)
	}
}
