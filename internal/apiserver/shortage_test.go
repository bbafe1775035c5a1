package apiserver

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/nstest"
	"rootlesskit/internal/unixsock"
)

// TestRunningOutOfDescriptors: one client at a time is served by the reserve.
func TestRunningOutOfDescriptors(t *testing.T) {
	h := start(t)
	if _, err := h.client(t).ListPorts(t.Context()); err != nil { // it serves, and has its reserve
		t.Fatal(err)
	}
	var clients [3]*os.File
	for i := range clients {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 60}); err != nil {
			t.Fatal(err)
		}
		clients[i] = os.NewFile(uintptr(fd), "client")
		defer clients[i].Close()
	}
	restore := exhaustDescriptors(t)
	defer restore()
	for _, c := range clients {
		if err := unix.Connect(int(c.Fd()), &unix.SockaddrUnix{Name: h.socket}); err != nil {
			t.Fatal(err)
		}
	}
	for i, c := range clients {
		if _, err := c.WriteString("GET /v1/ports HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(c) // to the end: there are others
		if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200") {
			t.Errorf("client %d got %q, %v", i, answer, err)
		}
	}
	restore()
	if err := h.end(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(h.log.String(), "too many open files") {
		t.Errorf("the log does not tell: %q", h.log)
	}
}

// exhaustDescriptors makes the process unable to open any more, until the
// function that it returns is called.
func exhaustDescriptors(t *testing.T) (restore func()) {
	t.Helper()
	fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0) // the lowest free one
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	return nstest.LimitFDs(t, fd)
}

// failingListener fails once with each error before it works.
type failingListener struct {
	net.Listener
	errs []error
}

func (l *failingListener) Accept() (net.Conn, error) {
	if len(l.errs) > 0 {
		err := l.errs[0]
		l.errs = l.errs[1:]
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", err)}
	}
	return l.Listener.Accept()
}

func serveFailing(t *testing.T, errs ...error) (*api.Client, chan error) {
	h := start(t) // a second server, beside its own
	socket := h.socket + "2"
	l, err := unixsock.Listen(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.server.Serve(ctx, &failingListener{l, errs}); close(done) }()
	client := api.NewClient(socket)
	t.Cleanup(func() { client.Close(); cancel(); <-done; l.Close() })
	return client, done
}

func TestShortagesPass(t *testing.T) {
	client, _ := serveFailing(t, unix.ENOMEM, unix.ENOBUFS, unix.ENFILE)
	if _, err := client.ListPorts(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestListenerThatIsBrokenEndsTheServer(t *testing.T) {
	_, done := serveFailing(t, unix.EINVAL)
	if err := <-done; !errors.Is(err, unix.EINVAL) {
		t.Errorf("error %v, want EINVAL", err)
	}
}
