package test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rootlesskit/internal/nstest"
)

// serviceManager receives what sd_notify(3) sends.
type serviceManager struct{ *net.UnixConn }

func newServiceManager(t *testing.T, name string) serviceManager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return serviceManager{conn}
}

// next returns the first line of the next message.
func (m serviceManager) next(t *testing.T) string {
	t.Helper()
	b := make([]byte, 1000)
	_ = m.SetReadDeadline(time.Now().Add(time.Minute))
	n, err := m.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(b[:n]), "\n")
	return first
}

// TestNotifyByLauncher: READY comes when the ports are there, STOPPING at the
// end, and the command has no part in it.
func TestNotifyByLauncher(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), fmt.Sprintf("@rootlesskit-test-%d", os.Getpid())} {
		manager := newServiceManager(t, name)
		port := nstest.FreePort(t)
		k := newKit(t, "--sdnotify=launcher", "--net=none", "--port-driver=builtin", "-p", fmt.Sprintf("127.0.0.1:%d:80/tcp", port),
			"sh", "-c", `trap "exit 0" TERM; echo "socket: ${NOTIFY_SOCKET-none}"; while :; do sleep 0.02; done`)
		k.Env = append(os.Environ(), "NOTIFY_SOCKET="+name)
		k.start(t)
		if got := manager.next(t); got != "READY=1" {
			t.Errorf("the first message is %q", got)
		}
		conn, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			conn.Close()
		} else if !errors.Is(err, syscall.ECONNRESET) { // nobody listens inside
			t.Errorf("ready without its port: %v", err)
		}
		poll(t, "the command", func() bool { return strings.Contains(k.output.String(), "socket: none\n") })
		k.terminate(t)
		if got := manager.next(t); got != "STOPPING=1" {
			t.Errorf("the last message is %q", got)
		}
		if code := k.await(t); code != 0 {
			t.Errorf("code %d: %s", code, k.output)
		}
	}
}

// TestNotifyByCommand: the default. dockerd, for one, knows itself when it is
// ready; that is told once, by it.
func TestNotifyByCommand(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	manager := newServiceManager(t, socket)
	cmd := exec.CommandContext(t.Context(), bin("rootlesskit"), "--net=none", "systemd-notify", "--no-block", "READY=1", "STATUS=of the command")
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket)
	if r := runCmd(t, cmd); r.code != 0 {
		t.Fatalf("code %d: %s", r.code, r.stderr)
	}
	messages := []string{manager.next(t)}
	if err := manager.SetReadDeadline(time.Now()); err != nil { // all has been sent
		t.Fatal(err)
	}
	b := make([]byte, 1000)
	for {
		n, err := manager.Read(b)
		if err != nil {
			break
		}
		messages = append(messages, string(b[:n]))
	}
	if fmt.Sprint(messages) != "[READY=1]" {
		t.Errorf("messages: %q", messages)
	}
}

// TestNotifyFailure: what never ran was never ready; and a service manager that
// is gone ends nothing.
func TestNotifyFailure(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	manager := newServiceManager(t, socket)
	run := func(socket string, command string) result {
		cmd := exec.CommandContext(t.Context(), bin("rootlesskit"), "--sdnotify=launcher", command)
		cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket)
		return runCmd(t, cmd)
	}
	if r := run(socket, "nosuchcmd"); r.code != 1 {
		t.Errorf("code %d: %s", r.code, r.stderr)
	}
	if got := manager.next(t); got != "STOPPING=1" {
		t.Errorf("the first message is %q", got)
	}
	for _, bad := range []string{socket + "x", "vsock:2:1"} {
		if r := run(bad, "true"); r.code != 0 || !strings.Contains(r.stderr, "the service manager could not be notified") || !strings.Contains(r.stderr, bad) {
			t.Errorf("code %d: %s", r.code, r.stderr)
		}
	}
	if r := runKit(t, "--sdnotify=x", "true"); r.code != 1 || !strings.Contains(r.stderr, `unknown sdnotify mode: "x"`) {
		t.Errorf("code %d: %s", r.code, r.stderr)
	}
}
