package test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
)

// server is the PID of the nth server, which may answer before the shell that started
// it says it.
func (k *kit) server(t *testing.T, n int) string {
	t.Helper()
	var said [][]string
	poll(t, "the PID of the server", func() bool {
		said = regexp.MustCompile(`server (\d+)\n`).FindAllStringSubmatch(k.output.String(), -1)
		return len(said) > n
	})
	return said[n][1]
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
		switch {
		case round == 1:
			open = openDescriptors(t, k.Process.Pid)
		case round > 1: // some more are for what is going on now
			poll(t, fmt.Sprintf("hardly more descriptors than the %d after the second server", open), func() bool {
				return openDescriptors(t, k.Process.Pid) <= open+3
			})
		}
		if state, why := k.portState(t, 1); state != api.PortNative {
			t.Fatalf("the port is %s: %s", state, why)
		}
		w.shell(t, w.host, "kill -KILL "+k.server(t, round))
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
	at := freeAddress(t)
	k := startKit(t, "--net=gvisor-tap-vsock", "--port-driver=bypass4netns", "-p", at+":80/tcp", "python3", "-B", testdata(t, "binds.py"), "plain")
	var c net.Conn
	poll(t, "a native server", func() bool {
		state, _ := k.portState(t, 1)
		var err error
		c, err = net.Dial("tcp", at)
		if err == nil && state != api.PortNative {
			c.Close()
		}
		return err == nil && state == api.PortNative
	})
	defer c.Close()
	// Whether the server has accepted it by now does not matter.
	k.mustCtl(t, "remove-ports", "1")
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	if n, err := c.Read(make([]byte, 1)); n != 0 || os.IsTimeout(err) {
		t.Errorf("the connection goes on: %v", err)
	}
	if c, err := net.Dial("tcp", at); err == nil {
		c.Close()
		t.Error("the port is still open")
	}
	poll(t, "the server's accept", func() bool { return strings.Contains(k.output.String(), "accept: EINVAL") })
	k.mustCtl(t, "add-ports", at+":80/tcp")
}

func TestBypassSecondLauncher(t *testing.T) {
	at := freeAddress(t)
	startKit(t, "--net=gvisor-tap-vsock", "--port-driver=bypass4netns", "-p", at+":80/tcp", "sleep", "100")
	r := runKit(t, "--net=gvisor-tap-vsock", "--port-driver=bypass4netns", "-p", at+":80/tcp", "true")
	if r.code != 1 || !strings.Contains(r.stderr, "listen tcp "+at+": bind: address already in use") {
		t.Errorf("code %d: %s", r.code, r.stderr)
	}
}

// TestBypassLate publishes a port that is served already: by the relay, until the
// server binds again.
func TestBypassLate(t *testing.T) {
	at := freeAddress(t)
	k := startKit(t, "--net=gvisor-tap-vsock", "--port-driver=bypass4netns", "python3", "-B", testdata(t, "binds.py"), "late")
	poll(t, "the server", func() bool { return strings.Contains(k.output.String(), "bound to 80") })
	k.mustCtl(t, "add-ports", at+":80/tcp")
	get := func() bool { return answers("http://" + at) }
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
	first, second := freeAddress(t), freeAddress(t)
	k := startKit(t, "--net=gvisor-tap-vsock", "--port-driver=bypass4netns", "-p", first+":80/tcp", "-p", second+":80/tcp",
		"python3", "-B", testdata(t, "binds.py"), "plain")
	for _, at := range []string{first, second} {
		poll(t, "an answer", func() bool { return answers("http://" + at) })
	}
	if state, why := k.portState(t, 2); state != api.PortRelay || !strings.Contains(why, "more than once") {
		t.Errorf("the port is %s: %s", state, why)
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
				if code := k.await(t); code != 1 || !strings.Contains(k.output.String(), "only in part") {
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

// TestBypassOrphans has a server that outlives its command: it ends too, as its
// socket would be dead.
func TestBypassOrphans(t *testing.T) {
	at := freeAddress(t)
	script := "python3 -B " + testdata(t, "binds.py") + " plain & echo server $!; while :; do sleep 0.1; done"
	k := startKit(t, "--net=gvisor-tap-vsock", "--port-driver=bypass4netns", "-p", at+":80/tcp", "sh", "-c", script)
	answersNatively(t, k, "http://"+at)
	server := k.server(t, 0)
	k.terminate(t)
	k.await(t)
	poll(t, "the end of the server", func() bool { _, err := os.Stat("/proc/" + server); return err != nil })
	if c, err := net.Dial("tcp", at); err == nil {
		c.Close()
		t.Error("the port is still open")
	}
}
