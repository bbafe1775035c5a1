package test

import (
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"rootlesskit/internal/nstest"
)

// TestKeepAlive: ss(8) shows the kernel's keepalive timers on both sockets of a
// connection that is relayed, so that it does not outlive a peer that vanished.
func TestKeepAlive(t *testing.T) {
	for _, flags := range []string{
		"--net=none --port-driver=builtin",
		"--net=gvisor-tap-vsock --port-driver=builtin",
		"--net=gvisor-tap-vsock --port-driver=builtin --detach-netns",
		"--net=slirp4netns --port-driver=builtin",
		"--net=gvisor-tap-vsock --port-driver=bypass4netns",
	} {
		for _, ip := range []string{"127.0.0.1", "::1"} {
			t.Run(strings.ReplaceAll(flags, " ", ",")+","+ip, func(t *testing.T) {
				outer, inner := net.JoinHostPort(ip, fmt.Sprint(nstest.FreePort(t))), net.JoinHostPort(ip, "80")
				k := startKit(t, append(strings.Fields(flags), "-p", outer+":"+inner+"/tcp", "sleep", "infinity")...)
				inside := []string{"nsenter", "-U", "--preserve-credentials", "-m", "-t", k.childPID(t), "-n"}
				if strings.Contains(flags, "detach") { // the path is one of the child's mount namespace
					inside = append(inside[:len(inside)-1], "nsenter", "--net="+k.stateDir+"/netns")
				}
				runServer(t, slices.Concat(inside, []string{"busybox", "httpd", "-f", "-p", inner, "-h", "/etc"}))
				get(t, "http://"+outer+"/passwd")
				d := net.Dialer{KeepAlive: -1}
				c, err := d.DialContext(t.Context(), "tcp", outer)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				awaitKeepAlive(t, "client", []string{"ss", "-Htno", "state", "established", "src", outer})
				awaitKeepAlive(t, "server", slices.Concat(inside, []string{"ss", "-Htno", "state", "established", "dst", inner}))
			})
		}
	}
}

// runServer runs a command until the test ends. It is no child of the launcher's
// command, so bypass4netns does not give it a socket of the host.
func runServer(t *testing.T, command []string) {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// awaitKeepAlive runs ss until it shows a timer of 15 s at most.
func awaitKeepAlive(t *testing.T, side string, ss []string) {
	t.Helper()
	poll(t, "the timer of the socket to the "+side, func() bool {
		r := runCmd(t, exec.CommandContext(t.Context(), ss[0], ss[1:]...))
		if r.code != 0 {
			t.Fatalf("%v: %s", ss, r.stderr)
		}
		return strings.Contains(r.stdout, "timer:(keepalive,1") && strings.Contains(r.stdout, "sec,")
	})
}
