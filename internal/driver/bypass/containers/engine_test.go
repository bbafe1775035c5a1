package containers_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/bypass"
	"rootlesskit/internal/driver/drivertest"
	"rootlesskit/internal/driver/relayed"
	"rootlesskit/internal/nstest"
	"rootlesskit/internal/ports"
	"rootlesskit/internal/seccomp"
)

func TestMain(m *testing.M) {
	nstest.Main(m, relayed.Handlers, bypass.Handlers)
}

// engine is a driver that container runtimes and tools talk to, in this process.
// The containers live in the network namespace of the child.
type engine struct {
	*bypass.Ports
	child  *nstest.Child
	table  *ports.Table
	socket string // for containers without a name
	log    *nstest.Buffer
	stop   func() error
}

func startEngine(t *testing.T) *engine {
	t.Helper()
	sb, child := drivertest.Sandbox(t)
	e := &engine{child: child, log: &nstest.Buffer{}}
	sb.Log = slog.New(slog.NewTextHandler(io.MultiWriter(t.Output(), e.log), nil))
	p, err := bypass.New(driver.PortsConfig{}, driver.FlagValues(bypass.Driver().Flags, nil))
	if err != nil {
		t.Fatal(err)
	}
	e.Ports, e.table = p.(*bypass.Ports), ports.New(p)
	sb.Table = e.table
	e.socket = filepath.Join(sb.StateDir, "bypass4netns.sock")
	e.stop = drivertest.Start(t, drivertest.Setup{Ports: p, Sandbox: sb, Child: child})
	return e
}

// handOver does what a runtime does for a process of a container: it sends the
// state and a descriptor.
func handOver(t *testing.T, socket, id string, pid, first int, metadata string, fd int) {
	t.Helper()
	state, err := json.Marshal(map[string]any{
		"ociVersion": "1.0.2", "fds": []string{"seccompFd"}, "pid": pid, "metadata": metadata,
		"state": map[string]any{"ociVersion": "1.0.2", "id": id, "status": "running", "pid": first, "bundle": "/"},
	})
	if err != nil {
		t.Fatal(err)
	}
	conn := connectTo(t, socket)
	defer conn.Close()
	if _, _, err := conn.WriteMsgUnix(state, unix.UnixRights(fd), nil); err != nil {
		t.Fatal(err)
	}
}

func connectTo(t *testing.T, socket string) *net.UnixConn {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// filtered has a thread with a filter, and returns the filter's listener. The
// thread ends with end, or with the test.
func filtered(t *testing.T) (fd int, end func()) {
	t.Helper()
	listeners, ended := make(chan int), make(chan struct{})
	install := func() {
		// Never unlocked: the thread ends with the goroutine, but for the
		// process's first one, which lives on.
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			listeners <- -1
			<-ended
			runtime.UnlockOSThread()
			return
		}
		err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		fd := -1
		if err == nil {
			fd, err = seccomp.Install(seccomp.Policy{})
		}
		if err != nil {
			t.Error(err)
		}
		listeners <- fd
		<-ended
	}
	var once sync.Once
	end = func() { once.Do(func() { close(ended) }) }
	t.Cleanup(end)
	for range 2 {
		go install()
		if fd = <-listeners; fd >= 0 {
			return fd, end
		}
	}
	t.Fatal("there is no filter")
	return -1, nil
}

// container hands a container over whose first process is the child, and returns
// what ends it.
func (e *engine) container(t *testing.T, socket, id, metadata string) (end func()) {
	t.Helper()
	fd, end := filtered(t)
	defer unix.Close(fd)
	handOver(t, socket, id, e.child.PID, e.child.PID, metadata, fd)
	return end
}

// endedPID is the PID of a process that has ended.
func endedPID(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

// rest is a request of a container tool.
func (e *engine) rest(t *testing.T, method, path, body string) (int, string) {
	t.Helper()
	r := httptest.NewRecorder()
	e.Handler().ServeHTTP(r, httptest.NewRequest(method, path, strings.NewReader(body)))
	return r.Code, r.Body.String()
}

func (e *engine) add(t *testing.T, id, socket string, port int) {
	t.Helper()
	spec := fmt.Sprintf(`{"id":%q,"socketPath":%q,"portMapping":[{"protos":["tcp"],"parentIP":"127.0.0.1","parentPort":%d,"childPort":80}]}`, id, socket, port)
	if code, body := e.rest(t, http.MethodPost, "/v1/bypass", spec); code != http.StatusCreated {
		t.Fatalf("code %d: %s", code, body)
	}
}

// serve has a server on port 80 of the containers' namespace.
func (e *engine) serve(t *testing.T) {
	t.Helper()
	l := e.child.ListenTCP(t, "tcp", "127.0.0.1:80")
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "served")
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close() })
}

// answers reports whether the server of the containers' namespace answers at a port
// of this host.
func answers(port int) bool {
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	b, _ := io.ReadAll(c)
	return string(b) == "served"
}

func isOpen(port int) bool {
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err == nil {
		c.Close()
	}
	return err == nil
}

// await waits until a condition holds.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still waiting for: %s", what)
		}
	}
}
