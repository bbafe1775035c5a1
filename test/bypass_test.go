package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"rootlesskit/api"
	"rootlesskit/internal/nstest"
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
	_ = c.SetDeadline(time.Now().Add(time.Minute))
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

// freeAddress is where to publish a port.
func freeAddress(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", nstest.FreePort(t))
}

// TestBypassErrors compares what bind(2) says with the relay's run, where the
// kernel alone says it.
func TestBypassErrors(t *testing.T) {
	at := freeAddress(t)
	script := []string{"python3", "-B", testdata(t, "binds.py"), "errors"}
	var outputs []string
	for _, driver := range []string{"builtin", "bypass4netns"} {
		k := startKit(t, append([]string{"--net=gvisor-tap-vsock", "--port-driver=" + driver, "-p", at + ":80/tcp"}, script...)...)
		poll(t, "the end of its tries", func() bool { return regexp.MustCompile(`unprivileged: E\w+\n`).MatchString(k.output.String()) })
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

// TestBypassContainer has a server on port 80 of a namespace within: it is not the
// published one.
func TestBypassContainer(t *testing.T) {
	at := freeAddress(t)
	k := startKit(t, "--net=gvisor-tap-vsock", "--port-driver=bypass4netns", "-p", at+":80/tcp",
		"unshare", "--net", "python3", "-B", testdata(t, "binds.py"), "plain")
	poll(t, "the server", func() bool { return regexp.MustCompile(`bound to \d+\n`).MatchString(k.output.String()) })
	if !strings.Contains(k.output.String(), "bound to 80\n") {
		t.Errorf("a server elsewhere was taken for the published one: %s", k.output)
	}
}

// TestBypassSubordinateUser has a server of a subordinate user: without a
// privilege, and with a port that needs none, or that needs none any more.
func TestBypassSubordinateUser(t *testing.T) {
	at, second := freeAddress(t), freeAddress(t)
	k := startKit(t, "--net=gvisor-tap-vsock", "--port-driver=bypass4netns", "-p", at+":8080/tcp", "python3", "-B", testdata(t, "binds.py"), "other_user", "8080")
	answersNatively(t, k, "http://"+at)
	k = startKit(t, "--net=gvisor-tap-vsock", "--port-driver=bypass4netns", "-p", second+":80/tcp", "sh", "-c",
		"echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start; exec python3 -B "+testdata(t, "binds.py")+" other_user 80")
	answersNatively(t, k, "http://"+second)
}

// TestBypassChangedUser has a server that was executed by a subordinate user, whose
// files of /proc are that user's: it is native, is known to have ended, and its
// socket that others have too is found.
func TestBypassChangedUser(t *testing.T) {
	at, second := freeAddress(t), freeAddress(t)
	for _, isolated := range []string{"--disable-host-loopback=false", "--disable-host-loopback"} {
		server := "setpriv --reuid 1000 --regid 1000 --clear-groups python3 -B " + testdata(t, "binds.py")
		k := startKit(t, "--net=gvisor-tap-vsock", "--port-driver=bypass4netns", isolated, "-p", at+":8080/tcp", "-p", second+":8081/tcp",
			"sh", "-c", server+" other_user 8080 & echo server $!; "+server+" fork_before 8081 & wait")
		answersNatively(t, k, "http://"+at)
		poll(t, "the other server", func() bool { return answers("http://" + second) })
		if state, why := k.portState(t, 2); state != api.PortRelay || !strings.Contains(why, "also another process's") {
			t.Errorf("a socket of two processes is %s: %s", state, why)
		}
		k.mustCtl(t, "remove-ports", "1")
		if answers("http://" + at) {
			t.Error("the port is still open")
		}
		k.terminate(t)
		k.await(t)
	}
}

// TestBypass32Bit has a program whose bind is socketcall(2).
func TestBypass32Bit(t *testing.T) {
	at := freeAddress(t)
	tool := bin("tool386")
	if err := exec.Command(tool, "true").Run(); errors.Is(err, syscall.ENOEXEC) {
		t.Skip("the kernel runs no 32-bit programs")
	}
	k := startKit(t, "--net=gvisor-tap-vsock", "--port-driver=bypass4netns", "--disable-host-loopback", "-p", at+":80/tcp", tool, "serve", "127.0.0.1:80")
	answersNatively(t, k, "http://"+at)
}
