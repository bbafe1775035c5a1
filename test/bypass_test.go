package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
)

// nativeFlags publish port 80 on all addresses of the host.
var nativeFlags = []string{"--net=gvisor-tap-vsock", "--port-driver=bypass4netns", "-p", ":8080:80/tcp"}

// portState is the state of the port with that ID, and why it is not native.
func (k *kit) portState(t *testing.T, id int) (state, why string) {
	t.Helper()
	for line := range strings.Lines(k.mustCtl(t, "list-ports", "--wide", "--json")) {
		var p api.PortStatus
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			t.Fatal(err)
		}
		if p.ID == id {
			return p.Details.State, p.Details.StateReason
		}
	}
	t.Fatalf("there is no port %d", id)
	return "", ""
}

// startNative runs a server in the world's host and waits until it answers.
func (w *world) startNative(t *testing.T, at netip.AddrPort, args ...string) *kit {
	t.Helper()
	k := newKit(t, args...)
	w.launch(t, k)
	w.awaitAnswer(t, at)
	return k
}

func (w *world) awaitAnswer(t *testing.T, at netip.AddrPort) {
	t.Helper()
	poll(t, "the server at "+at.String(), func() bool { _, err := w.get(t, at, 0); return err == nil })
}

// get is an HTTP request from a neighbour of the host. It returns what the
// server saw, in < and >, and fails unless that is the client.
func (w *world) get(t *testing.T, at netip.AddrPort, port uint16) (string, error) {
	t.Helper()
	from := netip.AddrPortFrom(netip.MustParseAddr(neighbour4), port)
	if at.Addr().Is6() {
		from = netip.AddrPortFrom(netip.MustParseAddr(neighbour6), port)
	}
	c, err := w.dial(t, "tcp", from, at)
	if err != nil {
		return "", err
	}
	defer c.Close()
	answer, err := request(c)
	if err == nil && !strings.Contains(answer, "<"+c.LocalAddr().String()+">") {
		return answer, fmt.Errorf("the server answered %q to %s", answer, c.LocalAddr())
	}
	return answer, err
}

func request(c net.Conn) (string, error) {
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	if err == nil && len(b) == 0 {
		err = io.ErrUnexpectedEOF
	}
	return string(b), err
}

var (
	at4 = netip.MustParseAddrPort(host4 + ":8080")
	at6 = netip.AddrPortFrom(netip.MustParseAddr(host6), 8080)
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

// TestBypassServers has servers of all kinds, which see their real clients and
// are served by no one of ours.
func TestBypassServers(t *testing.T) {
	binds := func(mode string) []string { return []string{"python3", "-B", testdata(t, "binds.py"), mode} }
	for i, c := range []struct {
		name    string
		command []string
		flags   []string
		at      []netip.AddrPort
		both    bool // with isolation and without; else one of the two
	}{
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
	} {
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

// inside runs a program in the namespaces of a run, as its child.
func (w *world) inside(k *kit, args ...string) string {
	pid, _ := os.ReadFile(filepath.Join(k.stateDir, "child_pid"))
	cmd := w.command(w.host, append([]string{"nsenter", "--target=" + string(pid), "--user", "--preserve-credentials", "--net"}, args...)...)
	out, _ := cmd.CombinedOutput()
	return string(out)
}

// TestBypassAddresses publishes on addresses of one family, and on one address.
func TestBypassAddresses(t *testing.T) {
	for _, c := range []struct {
		publish, mode string
		at            netip.AddrPort
		native        bool
	}{
		{host4 + ":8080:80/tcp", "plain", at4, true},
		{host4 + ":8080:127.0.0.1:80/tcp", "dual", at4, true},
		{"0.0.0.0:8080:80/tcp4", "dual", at4, true},
		{"0.0.0.0:8080:80/tcp4", "plain", at4, true},
		{"[" + host6 + "]:8080:[::1]:80/tcp", "dual", at6, true},
		{"[::]:8080:[::1]:80/tcp6", "v6only", at6, true},
		{"[::]:8080:80/tcp6", "dual", at6, true},
		{":8080:80/tcp", "plain", at6, true},                            // by the relay to the native server
		{"[" + host6 + "]:8080:127.0.0.1:80/tcp6", "plain", at6, false}, // an IPv4 socket cannot have it
		{":8080:80/tcp", "fork_before", at4, false},
		{":8080:80/tcp", "io_uring", at4, false},
	} {
		t.Run(c.publish+" "+c.mode, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			k := newKit(t, "--net=gvisor-tap-vsock", "--port-driver=bypass4netns", "-p", c.publish, "python3", "-B", testdata(t, "binds.py"), c.mode)
			w.launch(t, k)
			var answer string
			poll(t, "an answer", func() bool {
				if strings.Contains(k.output.String(), "io_uring: it does not bind") {
					t.Skip("this kernel has no bind by io_uring, or forbids it")
				}
				answer, _ = w.get(t, c.at, 0)
				return strings.Contains(answer, "<")
			})
			if strings.Contains(answer, "<127.") || strings.Contains(answer, "<[::1]") {
				t.Errorf("a remote client looks like loopback: %s", answer)
			}
			if state, why := k.portState(t, 1); (state == api.PortNative) != c.native || c.native == (why != "") {
				t.Errorf("the port is %s: %s", state, why)
			}
		})
	}
}

// TestBypassErrors compares what bind(2) says with the relay's run, where the
// kernel alone says it.
func TestBypassErrors(t *testing.T) {
	script := []string{"python3", "-B", testdata(t, "binds.py"), "errors"}
	var outputs []string
	for _, driver := range []string{"builtin", "bypass4netns"} {
		k := startKit(t, append([]string{"--net=gvisor-tap-vsock", "--port-driver=" + driver, "-p", "127.0.0.1:8180:80/tcp"}, script...)...)
		poll(t, "the end of its tries", func() bool { return strings.Contains(k.output.String(), "unprivileged: E") })
		var lines []string
		for line := range strings.Lines(k.output.String()) {
			if what, errno, ok := strings.Cut(line, ": "); ok && !strings.Contains(what, "time=") && !strings.Contains(what, "[") {
				lines = append(lines, what+": "+errno)
			}
		}
		outputs = append(outputs, strings.Join(lines, ""))
		k.terminate(t)
		k.await(t)
	}
	if outputs[0] != outputs[1] || strings.Count(outputs[0], "E") < 4 {
		t.Errorf("builtin: %sbypass4netns: %s", outputs[0], outputs[1])
	}
}

func TestBypassKeepsWhatTheServerSet(t *testing.T) {
	for mode, want := range map[string]string{
		"options":       "options: 100000 1 77 1 True",
		"close_on_exec": "before: False\nbound to 8181\nafter: False",
	} {
		k := startKit(t, "--net=gvisor-tap-vsock", "--port-driver=bypass4netns", "-p", "127.0.0.1:8181:80/tcp", "python3", "-B", testdata(t, "binds.py"), mode)
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

// TestBypassKilledServer kills the server under load: the port is refused, quickly
// and by us, and native again with the next one.
func TestBypassKilledServer(t *testing.T) {
	w := newWorld(t)
	script := `while :; do python3 -B ` + testdata(t, "binds.py") + ` plain & echo server $! ; wait $!; read -r _ </dev/stdin; done`
	hold, feed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	defer feed.Close()
	k := newKit(t, append(nativeFlags[:4:4], "sh", "-c", script)...)
	k.Stdin = hold
	w.launch(t, k)
	var open int // descriptors of the parent, with a server
	for round := range 5 {
		w.awaitAnswer(t, at4)
		now := openDescriptors(t, k.Process.Pid)
		if round == 1 {
			open = now
		}
		if round > 1 && now > open+3 {
			t.Errorf("%d descriptors are open, %d after the second server", now, open)
		}
		if state, why := k.portState(t, 1); state != api.PortNative {
			t.Fatalf("the port is %s: %s", state, why)
		}
		servers := regexp.MustCompile(`server (\d+)`).FindAllStringSubmatch(k.output.String(), -1)
		w.shell(t, w.host, "kill -KILL "+servers[len(servers)-1][1])
		poll(t, "the end of the server", func() bool { _, err := w.get(t, at4, 0); return err != nil })
		if _, err := w.get(t, at4, 0); err == nil || errors.Is(err, os.ErrDeadlineExceeded) { // refused, not held
			t.Errorf("without a server: %v", err)
		}
		if state, why := k.portState(t, 1); state != api.PortRelay || !strings.Contains(why, "ended") {
			t.Errorf("the port is %s: %s", state, why)
		}
		fmt.Fprintln(feed)
	}
	w.awaitAnswer(t, at4)
}

// openDescriptors counts a process's descriptors but for sockets that are bound to
// nothing: a pool may have come into use, and be growing. A server's are bound.
func openDescriptors(t *testing.T, pid int) (n int) {
	t.Helper()
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(process)
	dir := fmt.Sprintf("/proc/%d/fd/", pid)
	fds, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range fds {
		number, _ := strconv.Atoi(entry.Name())
		if link, _ := os.Readlink(dir + entry.Name()); !strings.HasPrefix(link, "socket:") {
			n++
			continue
		}
		fd, err := unix.PidfdGetfd(process, number, 0)
		if err != nil { // closed meanwhile
			continue
		}
		if bound(fd) {
			n++
		}
		unix.Close(fd)
	}
	return n
}

// bound reports whether a socket is no Internet socket without a port.
func bound(fd int) bool {
	sa, err := unix.Getsockname(fd)
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return sa.Port != 0
	case *unix.SockaddrInet6:
		return sa.Port != 0
	}
	return err == nil
}

// TestBypassRemoved removes a native port: its listener and its connections end,
// and it can be added again at once.
func TestBypassRemoved(t *testing.T) {
	k := startKit(t, "--net=gvisor-tap-vsock", "--port-driver=bypass4netns", "-p", "127.0.0.1:8182:80/tcp", "python3", "-B", testdata(t, "binds.py"), "plain")
	var c net.Conn
	poll(t, "a native server", func() bool {
		state, _ := k.portState(t, 1)
		var err error
		c, err = net.Dial("tcp", "127.0.0.1:8182")
		if err == nil && state != api.PortNative {
			c.Close()
		}
		return err == nil && state == api.PortNative
	})
	defer c.Close()
	// Whether the server has accepted it by now does not matter.
	k.mustCtl(t, "remove-ports", "1")
	_ = c.SetReadDeadline(time.Now().Add(3 * time.Second))
	if n, err := c.Read(make([]byte, 1)); n != 0 || os.IsTimeout(err) {
		t.Errorf("the connection goes on: %v", err)
	}
	if c, err := net.Dial("tcp", "127.0.0.1:8182"); err == nil {
		c.Close()
		t.Error("the port is still open")
	}
	poll(t, "the server's accept", func() bool { return strings.Contains(k.output.String(), "accept: EINVAL") })
	k.mustCtl(t, "add-ports", "127.0.0.1:8182:80/tcp")
}

func TestBypassSecondLauncher(t *testing.T) {
	startKit(t, "--net=gvisor-tap-vsock", "--port-driver=bypass4netns", "-p", "127.0.0.1:8183:80/tcp", "sleep", "100")
	r := runKit(t, "--net=gvisor-tap-vsock", "--port-driver=bypass4netns", "-p", "127.0.0.1:8183:80/tcp", "true")
	if r.code != 1 || !strings.Contains(r.stderr, "listen tcp 127.0.0.1:8183: bind: address already in use") {
		t.Errorf("code %d: %s", r.code, r.stderr)
	}
}

// TestBypassLate publishes a port that is served already: by the relay, until the
// server binds again.
func TestBypassLate(t *testing.T) {
	k := startKit(t, "--net=gvisor-tap-vsock", "--port-driver=bypass4netns", "python3", "-B", testdata(t, "binds.py"), "late")
	poll(t, "the server", func() bool { return strings.Contains(k.output.String(), "bound to 80") })
	k.mustCtl(t, "add-ports", "127.0.0.1:8184:80/tcp")
	get := func() bool { return answers("http://127.0.0.1:8184") }
	poll(t, "an answer", get)
	if state, why := k.portState(t, 1); state != api.PortRelay {
		t.Errorf("the port is %s: %s", state, why)
	}
	k.mustCtl(t, "info")
	if out := runCmd(t, exec.Command("pkill", "-HUP", "-P", k.childPID(t))); out.code != 0 {
		t.Fatal(out.stderr)
	}
	poll(t, "a native server", func() bool { state, _ := k.portState(t, 1); return get() && state == api.PortNative })
}

// TestBypassTwice publishes a port of the namespace at two of the host.
func TestBypassTwice(t *testing.T) {
	k := startKit(t, "--net=gvisor-tap-vsock", "--port-driver=bypass4netns", "-p", "127.0.0.1:8185:80/tcp", "-p", "127.0.0.1:8186:80/tcp",
		"python3", "-B", testdata(t, "binds.py"), "plain")
	for _, port := range []string{"8185", "8186"} {
		poll(t, "an answer", func() bool { return answers("http://127.0.0.1:" + port) })
	}
	if state, why := k.portState(t, 2); state != api.PortRelay || !strings.Contains(why, "more than once") {
		t.Errorf("the port is %s: %s", state, why)
	}
}

// TestBypassContainer has a server on port 80 of a namespace within: it is not the
// published one.
func TestBypassContainer(t *testing.T) {
	k := startKit(t, "--net=gvisor-tap-vsock", "--port-driver=bypass4netns", "-p", "127.0.0.1:8187:80/tcp",
		"unshare", "--net", "python3", "-B", testdata(t, "binds.py"), "plain")
	poll(t, "the server", func() bool { return strings.Contains(k.output.String(), "bound to") })
	if !strings.Contains(k.output.String(), "bound to 80\n") {
		t.Errorf("a server elsewhere was taken for the published one: %s", k.output)
	}
}

// TestBypassDenied refuses one system call after the other: the relay serves.
func TestBypassDenied(t *testing.T) {
	for _, call := range []string{"seccomp", "pidfd_getfd", "process_vm_readv", "landlock_create_ruleset", "landlock_restrict_self"} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			args := append(nativeFlags[:4:4], "--disable-host-loopback", "python3", "-B", testdata(t, "binds.py"), "plain")
			k := newKit(t, args...).under(bin("tool"), "deny", call)
			k.under("nsenter", w.nsenter(w.host)...).start(t)
			if call == "landlock_restrict_self" { // a filter without its other half must not run anything
				if code := k.await(t); code != 1 || !strings.Contains(k.output.String(), "in part only") {
					t.Errorf("code %d: %s", code, k.output)
				}
				return
			}
			k.awaitAPI(t)
			w.awaitAnswer(t, at4)
			if state, why := k.portState(t, 1); state != api.PortRelay || !strings.Contains(why, strings.TrimSuffix(call, "_create_ruleset")) {
				t.Errorf("the port is %s: %s", state, why)
			}
			if info := k.mustCtl(t, "info", "--json"); !strings.Contains(info, `"nativePorts": "no: `) {
				t.Errorf("info: %s", info)
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
		_ = c.SetDeadline(time.Now().Add(time.Second))
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
	k := newKit(t, append(nativeFlags[:4:4], "iperf3", "-s", "-1", "-p", "80")...)
	w.launch(t, k)
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

// TestBypassSubordinateUser has a server of a subordinate user: without a
// privilege, and with a port that needs none, or that needs none any more.
func TestBypassSubordinateUser(t *testing.T) {
	k := startKit(t, "--net=gvisor-tap-vsock", "--port-driver=bypass4netns", "-p", "127.0.0.1:8188:8080/tcp", "python3", "-B", testdata(t, "binds.py"), "other_user", "8080")
	answersNatively(t, k, "http://127.0.0.1:8188")
	k = startKit(t, "--net=gvisor-tap-vsock", "--port-driver=bypass4netns", "-p", "127.0.0.1:8189:80/tcp", "sh", "-c",
		"echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start; exec python3 -B "+testdata(t, "binds.py")+" other_user 80")
	answersNatively(t, k, "http://127.0.0.1:8189")
}

// TestBypassChangedUser has a server that was executed by a subordinate user, whose
// files of /proc are that user's: it is native, is known to have ended, and its
// socket that others have too is found.
func TestBypassChangedUser(t *testing.T) {
	for _, isolated := range []string{"--disable-host-loopback=false", "--disable-host-loopback"} {
		server := "setpriv --reuid 1000 --regid 1000 --clear-groups python3 -B " + testdata(t, "binds.py")
		k := startKit(t, "--net=gvisor-tap-vsock", "--port-driver=bypass4netns", isolated, "-p", "127.0.0.1:8197:8080/tcp", "-p", "127.0.0.1:8198:8081/tcp",
			"sh", "-c", server+" other_user 8080 & echo server $!; "+server+" fork_before 8081 & wait")
		answersNatively(t, k, "http://127.0.0.1:8197")
		poll(t, "the other server", func() bool { return answers("http://127.0.0.1:8198") })
		if state, why := k.portState(t, 2); state != api.PortRelay || !strings.Contains(why, "also another process's") {
			t.Errorf("a socket of two processes is %s: %s", state, why)
		}
		k.mustCtl(t, "remove-ports", "1")
		if answers("http://127.0.0.1:8197") {
			t.Error("the port is still open")
		}
		k.terminate(t)
		k.await(t)
	}
}

// TestBypass32Bit has a program whose bind is socketcall(2).
func TestBypass32Bit(t *testing.T) {
	tool := bin("tool386")
	if err := exec.Command(tool, "true").Run(); errors.Is(err, syscall.ENOEXEC) {
		t.Skip("the kernel runs no 32-bit programs")
	}
	k := startKit(t, "--net=gvisor-tap-vsock", "--port-driver=bypass4netns", "--disable-host-loopback", "-p", "127.0.0.1:8190:80/tcp", tool, "serve", "127.0.0.1:80")
	answersNatively(t, k, "http://127.0.0.1:8190")
}

// TestBypassOrphans has a server that outlives its command: it ends too, as its
// socket would be dead.
func TestBypassOrphans(t *testing.T) {
	script := "python3 -B " + testdata(t, "binds.py") + " plain & echo server $!; while :; do sleep 0.1; done"
	k := startKit(t, "--net=gvisor-tap-vsock", "--port-driver=bypass4netns", "-p", "127.0.0.1:8191:80/tcp", "sh", "-c", script)
	answersNatively(t, k, "http://127.0.0.1:8191")
	server := regexp.MustCompile(`server (\d+)`).FindStringSubmatch(k.output.String())[1]
	k.terminate(t)
	k.await(t)
	poll(t, "the end of the server", func() bool { _, err := os.Stat("/proc/" + server); return err != nil })
	if c, err := net.Dial("tcp", "127.0.0.1:8191"); err == nil {
		c.Close()
		t.Error("the port is still open")
	}
}
