package apiserver

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"rootlesskit/api"
)

// dial connects and sends the beginning of a request.
func dial(t *testing.T, h *harness, text string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", h.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	return conn
}

// until polls for a state of the server.
func until(t *testing.T, what string, reached func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !reached(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

var hangingRequests = map[string]string{
	"before the request": "",
	"in the header":      "GET /v1/info HTTP/1.1\r\nHost:",
	"in the body":        "POST /v1/ports HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
	"in an unwanted one": "DELETE /v1/ports/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n",
	"after the response": "GET /v1/info HTTP/1.1\r\nHost: x\r\n\r\n",
}

func TestHangingClientsHoldUpNobody(t *testing.T) {
	h := start(t)
	for _, text := range hangingRequests {
		dial(t, h, text)
	}
	check(t, h, "GET", "/v1/ports", "", "200 []")
	begin := time.Now()
	if err := h.end(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > defaultLimits.grace+30*time.Second {
		t.Errorf("the end took %v", took)
	}
}

// The clients have said all that they say before the server accepts them: its
// limits are so short here that they could end before a client has spoken.
func TestHangingClientsAreCut(t *testing.T) {
	conns := map[string]net.Conn{}
	start(t, func(h *harness) {
		h.server.limits.read, h.server.limits.idle = 50*time.Millisecond, 50*time.Millisecond
		h.beforeServe = func() {
			for where, text := range hangingRequests {
				conns[where] = dial(t, h, text)
			}
		}
	})
	for where, conn := range conns {
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a client that hangs %s stays connected", where)
		}
	}
}

func TestIdleServerEndsAtOnce(t *testing.T) {
	h := start(t, func(h *harness) { h.server.limits.grace = time.Minute })
	check(t, h, "GET", "/v1/ports", "", "200 []") // leaves an idle connection
	begin := time.Now()
	if err := h.end(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took >= h.server.limits.grace {
		t.Errorf("the end took %v", took)
	}
	if _, err := os.Lstat(h.socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket remains: %v", err)
	}
}

// The limits are the client's. A driver may take longer. The client has said all before
// the server accepts it, so that its own time is none.
func TestSlowDriver(t *testing.T) {
	const spec = `{"proto":"tcp","parentPort":1,"childPort":2}`
	slow := func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Second):
			return nil
		}
	}
	var conn net.Conn
	start(t, func(h *harness) {
		h.server.limits.read, h.server.limits.write = 2*time.Second, 2*time.Second
		h.driver.OnForward = func(ctx context.Context, _ api.PortSpec) error { return slow(ctx) }
		h.driver.OnClose = func(api.PortSpec) error { return slow(context.Background()) }
		h.beforeServe = func() {
			conn = dial(t, h, "POST /v1/ports HTTP/1.1\r\nHost: x\r\nContent-Length: 44\r\n\r\n"+spec+
				"DELETE /v1/ports/1 HTTP/1.1\r\nHost: x\r\n\r\n")
		}
	})
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	answers := bufio.NewReader(conn)
	expectAnswer(t, answers, `201 {"id":1,"spec":`+spec+`}`)
	expectAnswer(t, answers, "200 ")
}

func expectAnswer(t *testing.T, from *bufio.Reader, want string) {
	t.Helper()
	resp, err := http.ReadResponse(from, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if got := resp.Status[:3] + " " + string(body); got != want || err != nil {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}

func TestPortOfAClientThatHungUpIsClosed(t *testing.T) {
	h := start(t)
	forwarding := make(chan struct{})
	h.driver.OnForward = func(ctx context.Context, _ api.PortSpec) error {
		close(forwarding)
		<-ctx.Done() // a driver that does not care returns success
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		_, err := h.client(t).AddPort(ctx, api.PortSpec{Proto: "tcp", ParentPort: 1, ChildPort: 2})
		result <- err
	}()
	<-forwarding
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	h.driver.OnForward = nil
	spec := api.PortSpec{Proto: "tcp", ParentPort: 1, ChildPort: 2}
	until(t, "the port is closed", func() bool {
		_, err := h.client(t).AddPort(t.Context(), spec)
		return err == nil
	})
	if list := h.table.List(false); len(list) != 1 {
		t.Errorf("listed %v", list)
	}
}

// A request that is under way when the server is told to stop is answered.
func TestStoppingServerAnswers(t *testing.T) {
	h := start(t, func(h *harness) { h.server.limits.grace = time.Minute })
	closing, release := make(chan struct{}), make(chan struct{})
	h.driver.OnClose = func(api.PortSpec) error { close(closing); <-release; return nil }
	c := h.client(t)
	if _, err := c.AddPort(t.Context(), api.PortSpec{Proto: "tcp", ParentPort: 1, ChildPort: 2}); err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() { result <- c.RemovePort(t.Context(), 1) }()
	<-closing
	h.stop()
	until(t, "the server listens no more", func() bool {
		conn, err := net.Dial("unix", h.socket)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	close(release)
	if err := <-result; err != nil {
		t.Error(err)
	}
}

// A driver that hangs ends with the server's grace.
func TestHangingDriverEndsWithTheServer(t *testing.T) {
	h := start(t, func(h *harness) { h.server.limits.grace = 20 * time.Millisecond })
	forwarding := make(chan struct{})
	h.driver.OnForward = func(ctx context.Context, _ api.PortSpec) error { close(forwarding); <-ctx.Done(); return ctx.Err() }
	result := make(chan error, 1)
	go func() {
		_, err := h.client(t).AddPort(t.Context(), api.PortSpec{Proto: "tcp", ParentPort: 1, ChildPort: 2})
		result <- err
	}()
	<-forwarding
	if err := h.end(); err != nil {
		t.Error(err)
	}
	if err := <-result; err == nil {
		t.Error("the port was published")
	}
	if n := h.driver.OpenPorts(); n != 0 {
		t.Errorf("%d ports remain open", n)
	}
}

// TestHTTP is what clients of net/http are used to, first line by first line.
func TestHTTP(t *testing.T) {
	h := start(t)
	const spec = `{"proto":"tcp","parentPort":1,"childPort":2}`
	for _, tt := range []struct{ text, want string }{
		{"GET /v1/info HTTP/1.1\r\nHost:\r\n\r\n", "200"},
		{"GET /v1/info HTTP/1.1\r\nHost: x\r\n\r\n", "200"},
		{"HEAD /v1/info HTTP/1.1\r\nHost: x\r\n\r\n", "200"},
		{"POST /v1/ports HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2c\r\n" + spec + "\r\n0\r\n\r\n", "201"},
		{"POST /v1/ports HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 44\r\n\r\n", "100"},
		{"POST /v1/ports HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\nContent-Length: 0\r\n\r\n", "417"},
		{"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", "400"},
		{"GET /v1/info HTTP/9.9\r\n\r\n", "505"},
		{"GET /v1/info HTTP/1.1\r\n\r\n", "400"}, // no Host
		{"GET /v1/info HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", "400"},
		{"GET /v1/info HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n", "400"},
		{"GET /v1/info HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("x", maxHeader+8<<10) + "\r\n\r\n", "431"},
		{"POST /v1/ports HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", "400"},
	} {
		conn := dial(t, h, "")
		go func() { _, _ = io.WriteString(conn, tt.text) }() // it may be cut off
		line, err := bufio.NewReader(conn).ReadString('\n')
		if _, status, _ := strings.Cut(line, " "); err != nil || !strings.HasPrefix(status, tt.want) {
			t.Errorf("%.60q: %q, %v, want %s", tt.text, line, err, tt.want)
		}
	}
	check(t, h, "GET", "/v1/ports", "", `200 [{"id":1,"spec":`+spec+`}]`)
}

// A connection of HTTP/1.0 is kept where the client asks for that.
func TestKeepAliveOfHTTP10(t *testing.T) {
	h := start(t)
	conn := dial(t, h, strings.Repeat("GET /v1/ports HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 2)+"GET /v1/ports HTTP/1.0\r\n\r\n")
	answers, err := io.ReadAll(conn)
	if n := strings.Count(string(answers), "200 OK"); n != 3 || err != nil {
		t.Errorf("%d answers, %v: %s", n, err, answers)
	}
}

// A client that sends no more after its request, as nc -N and socat do, gets the
// answer, and then the end of the connection.
func TestHalfClose(t *testing.T) {
	h := start(t)
	forwarding, release := make(chan struct{}), make(chan struct{})
	h.driver.OnForward = func(ctx context.Context, _ api.PortSpec) error {
		forwarding <- struct{}{}
		select {
		case <-release:
		case <-ctx.Done():
		}
		return ctx.Err()
	}
	const spec = `{"proto":"tcp","parentPort":1,"childPort":2}`
	conn := dial(t, h, "POST /v1/ports HTTP/1.1\r\nHost: x\r\nContent-Length: 44\r\n\r\n"+spec)
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	<-forwarding
	time.AfterFunc(3*hangUpPoll, func() { close(release) }) // the server has seen the end by then
	answer, err := io.ReadAll(conn)
	if !strings.HasPrefix(string(answer), "HTTP/1.1 201") || err != nil {
		t.Errorf("%q, %v", answer, err)
	}
}

// A handler that panics ends its connection, and nothing else.
func TestPanic(t *testing.T) {
	h := start(t, func(h *harness) {
		h.server.cfg.Info = func() (api.Info, error) { panic("a defect") }
	})
	conn := dial(t, h, "GET /v1/info HTTP/1.1\r\nHost: x\r\n\r\n")
	if b, err := io.ReadAll(conn); len(b) > 0 {
		t.Errorf("%q, %v", b, err)
	}
	check(t, h, "GET", "/v1/ports", "", "200 []")
}
