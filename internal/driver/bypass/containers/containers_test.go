package containers_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/nstest"
)

// TestExecInContainer has processes that were executed in a container, such as
// health checks, come and go: the container's ports are its first process's.
func TestExecInContainer(t *testing.T) {
	for _, named := range []bool{false, true} {
		t.Run(fmt.Sprintf("named=%v", named), func(t *testing.T) {
			e := startEngine(t)
			e.serve(t)
			port := nstest.FreePort(t)
			socket, metadata := e.socket, fmt.Sprintf("127.0.0.1:%d:80/tcp", port)
			if named {
				socket, metadata = filepath.Join(t.TempDir(), "c.sock"), ""
				e.add(t, "c1", socket, port)
			}
			end := e.container(t, socket, "c1", metadata)
			await(t, "the server", func() bool { return answers(port) })
			for range 20 {
				fd, end := filtered(t)
				handOver(t, socket, "c1", endedPID(t), e.child.PID, metadata, fd)
				unix.Close(fd)
				end()
			}
			// More connections than sockets may have been made before.
			for i := range 50 {
				if !answers(port) {
					t.Fatalf("connection %d is not answered", i)
				}
			}
			if said := e.log.String(); strings.Contains(said, "WARN") {
				t.Error(said)
			}
			end()
			if !named {
				await(t, "the end of the port", func() bool { return !isOpen(port) && len(e.table.List(false)) == 0 })
			}
		})
	}
}

// TestForgedHandOver sends descriptors that are no seccomp listeners: nothing is
// published, and they are closed.
func TestForgedHandOver(t *testing.T) {
	e := startEngine(t)
	for what, open := range map[string]func() (int, error){
		"a pipe":     func() (int, error) { var p [2]int; err := unix.Pipe(p[:]); unix.Close(p[1]); return p[0], err },
		"a socket":   func() (int, error) { return unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0) },
		"an eventfd": func() (int, error) { return unix.Eventfd(0, 0) },
		"a file":     func() (int, error) { return unix.Open("/dev/null", unix.O_RDWR, 0) },
	} {
		t.Run(what, func(t *testing.T) {
			port := nstest.FreePort(t)
			fd, err := open()
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			before := nstest.OpenFDs()
			handOver(t, e.socket, "forged", e.child.PID, e.child.PID, fmt.Sprintf("127.0.0.1:%d:80/tcp", port), fd)
			await(t, "the refusal", func() bool { return strings.Contains(e.log.String(), "not the listener of a seccomp filter") })
			if isOpen(port) {
				t.Error("the port is open")
			}
			await(t, "the descriptors to be closed", func() bool { return len(nstest.LeakedFDs(before)) == 0 })
			e.log.Reset()
		})
	}
}

// TestSilentRuntime has clients that connect and say nothing: others are not kept
// waiting.
func TestSilentRuntime(t *testing.T) {
	e := startEngine(t)
	e.serve(t)
	for range 50 {
		defer connectTo(t, e.socket).Close()
	}
	port := nstest.FreePort(t)
	e.container(t, e.socket, "c1", fmt.Sprintf("127.0.0.1:%d:80/tcp", port))
	await(t, "the server of a container", func() bool { return answers(port) })
}

// TestUnusableHandOver: where a container's network cannot be found, its ports end
// with its last process, as any other's.
func TestUnusableHandOver(t *testing.T) {
	e := startEngine(t)
	port := nstest.FreePort(t)
	fd, end := filtered(t)
	defer unix.Close(fd)
	pid := endedPID(t)
	handOver(t, e.socket, "c1", pid, pid, fmt.Sprintf("127.0.0.1:%d:80/tcp", port), fd)
	await(t, "the reason", func() bool { return strings.Contains(e.log.String(), "no such file or directory") })
	end()
	await(t, "the end of the port", func() bool { return !isOpen(port) })
}

// TestLongState has a state that does not fit into one packet of the kernel's.
func TestLongState(t *testing.T) {
	e := startEngine(t)
	e.serve(t)
	fd, _ := filtered(t)
	defer unix.Close(fd)
	port := nstest.FreePort(t)
	handOver(t, e.socket, strings.Repeat("x", 200<<10), e.child.PID, e.child.PID, fmt.Sprintf("127.0.0.1:%d:80/tcp", port), fd)
	await(t, "the server", func() bool { return answers(port) })
}

// TestListed: the ports of containers are in the list of all ports, conflict with
// others, and can be removed from there.
func TestListed(t *testing.T) {
	e := startEngine(t)
	port, socket := nstest.FreePort(t), filepath.Join(t.TempDir(), "c.sock")
	e.add(t, "c1", socket, port)
	want := api.PortSpec{Proto: "tcp", ParentIP: "127.0.0.1", ParentPort: port, ChildPort: 80}
	list := e.table.List(true)
	if len(list) != 1 || list[0].ID != 1 || list[0].Spec != want || list[0].Details == nil || list[0].Details.State != api.PortRelay {
		t.Fatalf("the list is %+v", list)
	}
	if _, err := e.table.Publish(t.Context(), want); err == nil || err.Error() != "conflict with ID 1" {
		t.Errorf("the same port again: %v", err)
	}
	if err := e.table.Unpublish(t.Context(), 1); err != nil || isOpen(port) {
		t.Errorf("the port was removed: %v, open: %v", err, isOpen(port))
	}
	if code, body := e.rest(t, http.MethodDelete, "/v1/bypass/c1", ""); code != http.StatusOK {
		t.Errorf("code %d: %s", code, body)
	}
	e.add(t, "c1", socket, port)
	e.rest(t, http.MethodDelete, "/v1/bypass/c1", "")
	if list := e.table.List(false); len(list) != 0 || isOpen(port) {
		t.Errorf("after the end, the list is %+v", list)
	}
}

// TestMalformedPorts: why a container has no ports is said once, however many
// processes are executed in it.
func TestMalformedPorts(t *testing.T) {
	e := startEngine(t)
	end := e.container(t, e.socket, "c1", "127.0.0.1:8080:80")
	defer end()
	// The container is there before the others, and so outlives them.
	await(t, "the reason", func() bool { return strings.Contains(e.log.String(), "missing proto") })
	for range 5 {
		e.container(t, e.socket, "c1", "127.0.0.1:8080:80")()
	}
	end = e.container(t, e.socket, "c2", "127.0.0.1:8081:80")
	defer end()
	await(t, "the next reason", func() bool { return strings.Contains(e.log.String(), "127.0.0.1:8081:80") })
	if n := strings.Count(e.log.String(), "WARN"); n != 2 {
		t.Errorf("%d warnings:\n%s", n, e.log)
	}
}
