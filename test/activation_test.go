package test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rootlesskit/internal/nstest"
)

// sees prints what a command has of an activation.
const sees = `echo "$$ ${LISTEN_PID-no} ${LISTEN_FDS-no} ${LISTEN_FDNAMES-no}"; ls -l /proc/self/fd | grep -c socket:; `

// knock connects until somebody listens, which is what starts an activated
// program. The connection is kept: the program is to find it.
func knock(t *testing.T, port int) {
	t.Helper()
	poll(t, "an activation socket", func() bool {
		conn, err := net.DialTimeout("tcp4", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
		if err != nil {
			return false
		}
		t.Cleanup(func() { conn.Close() })
		return true
	})
}

// TestSystemdSocketActivate: sockets of systemd reach the command.
func TestSystemdSocketActivate(t *testing.T) {
	for _, names := range []string{"web", "one:two:three"} {
		for _, flags := range [][]string{nil, {"--net=none"}, {"--pidns"}, {"--net=none", "--detach-netns", "--port-driver=builtin"}} {
			count := strings.Count(names, ":") + 1
			port := nstest.FreePort(t)
			listen := []string{fmt.Sprintf("--listen=127.0.0.1:%d", port), "--fdname=" + names}
			for i := 1; i < count; i++ {
				listen = append(listen, "--listen="+filepath.Join(t.TempDir(), "socket"))
			}
			k := newKit(t, append(flags, "sh", "-c", sees)...).under("systemd-socket-activate", listen...)
			k.start(t)
			knock(t, port)
			if code := k.await(t); code != 0 {
				t.Fatalf("code %d: %s", code, k.output)
			}
			var own, pid, fds, gotNames, sockets string
			_, printed, _ := strings.Cut(k.output.String(), "-c socket:; )\n") // what systemd-socket-activate says
			if _, err := fmt.Sscan(printed, &own, &pid, &fds, &gotNames, &sockets); err != nil {
				t.Fatalf("%v: %q", err, k.output)
			}
			if own != pid || fds != fmt.Sprint(count) || gotNames != names || sockets != fmt.Sprint(count) {
				t.Errorf("%v: of %d sockets the command sees %q", flags, count, printed)
			}
		}
	}
}

// TestPortOnActivationSocket: a published port is served on the socket of
// systemd that is bound to it; the command gets the others.
func TestPortOnActivationSocket(t *testing.T) {
	for _, flags := range [][]string{
		{"--net=none", "--port-driver=builtin"},
		{"--net=none", "--port-driver=builtin", "--pidns"},
		{"--net=gvisor-tap-vsock", "--port-driver=gvisor-tap-vsock", "--disable-host-loopback"},
		{"--net=gvisor-tap-vsock", "--port-driver=builtin", "--disable-host-loopback", "--detach-netns"},
	} {
		for _, all := range []bool{false, true} {
			t.Run(fmt.Sprint(flags, " all=", all), func(t *testing.T) {
				t.Parallel()
				testPortOnActivationSocket(t, all, flags)
			})
		}
	}
}

func testPortOnActivationSocket(t *testing.T, all bool, flags []string) {
	port := nstest.FreePort(t)
	listen := []string{"--fdname=web", fmt.Sprintf("--listen=%d", port)} // [::] for both families
	want := "no no no"
	if !all {
		listen = append(listen, "--listen="+filepath.Join(t.TempDir(), "other"))
		listen[0] = "--fdname=web:other"
		want = "own 1 other"
	}
	page := t.TempDir()
	serve := "busybox httpd -p 80 -h " + page + "; "
	if slices.Contains(flags, "--detach-netns") {
		serve = "nsenter --net=$ROOTLESSKIT_STATE_DIR/netns " + serve
	}
	script := `{ ` + sees + `} >` + page + "/seen; mv " + page + "/seen " + page + "/index.html; " + serve + "sleep 60"
	spec := fmt.Sprintf("0.0.0.0:%d:80/tcp", port)
	k := newKit(t, append(flags, "-p", spec, "sh", "-c", script)...).under("systemd-socket-activate", listen...)
	k.start(t)
	knock(t, port)
	k.awaitAPI(t)
	url := fmt.Sprintf("http://127.0.0.1:%d/", port)
	body := get(t, url)
	sockets := map[bool]string{true: "0", false: "1"}[all]
	if got := activationOf(t, body); got != want || !strings.HasSuffix(body, "\n"+sockets+"\n") {
		t.Errorf("the command sees %q, want %q", body, want)
	}

	// The port can be removed, and opened again without a bind.
	k.mustCtl(t, "remove-ports", "1")
	client := &http.Client{Timeout: 200 * time.Millisecond, Transport: &http.Transport{DisableKeepAlives: true}}
	if resp, err := client.Get(url); err == nil {
		resp.Body.Close()
		t.Error("the removed port is served")
	}
	k.mustCtl(t, "add-ports", spec)
	if again := get(t, url); again != body {
		t.Errorf("opened again: %q", again)
	}
}

// activationOf is LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES of what a command sees.
func activationOf(t *testing.T, seen string) string {
	t.Helper()
	var own, pid, count, names string
	if _, err := fmt.Sscan(seen, &own, &pid, &count, &names); err != nil {
		t.Fatalf("%v: %q", err, seen)
	}
	if pid == own {
		pid = "own"
	}
	return pid + " " + count + " " + names
}

// TestUDPPortOnActivationSocket: one socket for both families, whose clients
// are of either.
func TestUDPPortOnActivationSocket(t *testing.T) {
	for _, driver := range []string{"builtin", "gvisor-tap-vsock"} {
		port := nstest.FreePort(t)
		k := newKit(t, "--net=gvisor-tap-vsock", "--ipv6", "--disable-host-loopback", "--port-driver="+driver, "-p", fmt.Sprintf("0.0.0.0:%d:53/udp", port),
			"socat", "UDP6-LISTEN:53,fork,ipv6only=0", "EXEC:cat")
		k.under("systemd-socket-activate", "--datagram", fmt.Sprintf("--listen=%d", port)).start(t)
		for _, client := range []string{"127.0.0.1", "::1"} {
			conn, err := net.Dial("udp", net.JoinHostPort(client, fmt.Sprint(port)))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			poll(t, driver+"'s answer for "+client, func() bool {
				b := make([]byte, 10)
				_, _ = conn.Write([]byte("hello"))
				_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
				n, err := conn.Read(b)
				return err == nil && string(b[:n]) == "hello"
			})
		}
	}
}

// TestPrivilegedPortOnActivationSocket: port 80 of the host, without any
// capability. The test's user cannot bind it; so a user namespace does, whose
// root may, and no longer may once the capability is given up.
func TestPrivilegedPortOnActivationSocket(t *testing.T) {
	k := newKit(t, append([]string{"--net=none", "--port-driver=builtin", "-p", "127.0.0.1:80:80/tcp"}, webServer...)...)
	k.under("setpriv", "--bounding-set=-net_bind_service")
	k.under("systemd-socket-activate", "--listen=127.0.0.1:80")
	k.under("unshare", "--user", "--map-root-user", "--net", "sh", "-c", `
		ip link set lo up
		echo 1024 >/proc/sys/net/ipv4/ip_unprivileged_port_start
		"$@" & kit=$!
		until page=$(curl -sf -m 5 http://127.0.0.1:80/passwd 2>/dev/null); do sleep 0.05; done
		echo "page: $page"
		kill $kit; wait $kit`, "sh")
	k.start(t)
	k.await(t)
	if !strings.Contains(k.output.String(), "page: root:") {
		t.Error(k.output)
	}
}

// TestForeignActivation: LISTEN_PID names another process, so all is passed on,
// and no port is served on what is not ours.
func TestForeignActivation(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, publish := range []bool{false, true} {
		args := []string{"--net=none", "--port-driver=builtin"}
		if publish {
			args = append(args, "-p", fmt.Sprintf("%s:80/tcp", l.Addr()))
		}
		cmd := exec.CommandContext(t.Context(), bin("rootlesskit"), append(args, "sh", "-c", sees)...)
		cmd.Env = append(os.Environ(), "LISTEN_PID=1", "LISTEN_FDS=1", "LISTEN_FDNAMES=x")
		cmd.ExtraFiles = []*os.File{f}
		r := runCmd(t, cmd)
		if !publish && !strings.HasSuffix(r.stdout, " 1 1 x\n1\n") {
			t.Errorf("the command sees %q: %s", r.stdout, r.stderr)
		}
		if publish && (r.code != 1 || !strings.Contains(r.stderr, "address already in use")) {
			t.Errorf("code %d: %s", r.code, r.stderr)
		}
	}
}
