package drivertest

import (
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// nextPort returns a port of the namespace that nothing listens on.
func (s *suite) nextPort() int {
	s.childPort++
	return firstChildPort + s.childPort
}

const firstChildPort = 7000

// listener is a server inside the namespace whose connections the test itself
// accepts.
type listener struct {
	*net.TCPListener
	port int
}

// listenTCP listens on all addresses of the namespace.
func (s *suite) listenTCP(t testing.TB) listener {
	t.Helper()
	return s.listenTCPOn(t, "")
}

func (s *suite) listenTCPOn(t testing.TB, ip string) listener {
	t.Helper()
	port := s.nextPort()
	return listener{s.Child.ListenTCP(t, "tcp", net.JoinHostPort(ip, strconv.Itoa(port))), port}
}

func (l listener) accept(t testing.TB) *net.TCPConn {
	t.Helper()
	_ = l.SetDeadline(time.Now().Add(patience))
	conn, err := l.AcceptTCP()
	if err != nil {
		t.Fatalf("the server gets no connection: %v", err)
	}
	return guard(t, conn)
}

// connect publishes a port and returns both ends of a connection through it.
func (e endpoint) connect(t testing.TB) (client, server *net.TCPConn) {
	t.Helper()
	l := e.listenTCP(t)
	client = e.publish(t, l.port).dial(t)
	return client, l.accept(t)
}

// serveTCP has a server in the namespace until the test ends, and returns its
// port.
func (s *suite) serveTCP(t testing.TB, handle func(*net.TCPConn)) int {
	t.Helper()
	l := s.listenTCP(t)
	l.serve(t, handle)
	return l.port
}

func (l listener) serve(t testing.TB, handle func(*net.TCPConn)) {
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.AcceptTCP()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(patience))
			running.Go(func() {
				defer conn.Close()
				handle(conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
}

// echo sends everything back.
func echo(conn *net.TCPConn) { _, _ = io.Copy(struct{ io.Writer }{conn}, struct{ io.Reader }{conn}) }

// greet makes a server that says a word and ends.
func greet(word string) func(*net.TCPConn) {
	return func(conn *net.TCPConn) { _, _ = io.WriteString(conn, word) }
}

// exchange sends a message to an echo server and checks what comes back.
func exchange(t testing.TB, conn net.Conn, message string) {
	t.Helper()
	if _, err := io.WriteString(conn, message); err != nil {
		t.Fatal(err)
	}
	expectMessage(t, conn, message)
}

func expectMessage(t testing.TB, conn net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(conn, got); err != nil || string(got) != want {
		t.Fatalf("got %q, %v, want %q", got[:n], err, want)
	}
}

func sendAndEnd(t testing.TB, conn *net.TCPConn, message string) {
	t.Helper()
	if _, err := io.WriteString(conn, message); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

func expectMessageAndEnd(t testing.TB, conn net.Conn, want string) {
	t.Helper()
	if got, err := io.ReadAll(conn); err != nil || string(got) != want {
		t.Fatalf("got %q, %v, want %q and the end", got, err, want)
	}
}

// reset closes a connection by RST.
func reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	conn.Close()
}

func expectReset(t testing.TB, conn net.Conn) {
	t.Helper()
	if n, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %d bytes, %v, want a reset", n, err)
	}
}

// expectEnd waits for a connection to end in whatever way.
func expectEnd(t testing.TB, conn net.Conn) {
	t.Helper()
	n, err := conn.Read(make([]byte, 1))
	var timeout net.Error
	if err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("got %d bytes, %v, want the end of the connection", n, err)
	}
}
