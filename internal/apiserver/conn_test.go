package apiserver

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"rootlesskit/api"
)

// read takes one response from a connection.
func read(t *testing.T, in *bufio.Reader, method string) (*http.Response, string) {
	t.Helper()
	resp, err := http.ReadResponse(in, &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// Requests that come at once are answered one after the other, and HEAD
// without a body.
func TestPipelining(t *testing.T) {
	h := start(t)
	const spec = `{"proto":"tcp","parentPort":1,"childPort":2}`
	conn := dial(t, h, "POST /v1/ports HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"+
		"2c\r\n"+spec+"\r\n0\r\n\r\n"+
		"HEAD /v1/ports HTTP/1.1\r\nHost: x\r\n\r\n"+
		"GET /v1/ports HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	in := bufio.NewReader(conn)
	if resp, body := read(t, in, "POST"); resp.StatusCode != 201 || !strings.Contains(body, spec) {
		t.Errorf("%s %q", resp.Status, body)
	}
	if resp, body := read(t, in, "HEAD"); resp.StatusCode != 200 || body != "" || resp.ContentLength <= 0 {
		t.Errorf("%s %q, length %d", resp.Status, body, resp.ContentLength)
	}
	if resp, body := read(t, in, "GET"); resp.StatusCode != 200 || !strings.Contains(body, spec) || !resp.Close || resp.Header.Get("Date") == "" {
		t.Errorf("%v %q", resp, body)
	}
	if b, err := io.ReadAll(in); len(b) > 0 || err != nil {
		t.Errorf("after the last response: %q, %v", b, err)
	}
}

// A client may wait to be asked for the body.
func TestExpectContinue(t *testing.T) {
	h := start(t)
	const spec = `{"proto":"tcp","parentPort":1,"childPort":2}`
	conn := dial(t, h, "POST /v1/ports HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 44\r\n\r\n")
	in := bufio.NewReader(conn)
	line, err := in.ReadString('\n')
	if err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if _, err := in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, spec); err != nil {
		t.Fatal(err)
	}
	if resp, body := read(t, in, "POST"); resp.StatusCode != 201 {
		t.Errorf("%s %q", resp.Status, body)
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

// Whatever a client sends, its connection is served to the end.
func FuzzConn(f *testing.F) {
	for _, text := range hangingRequests {
		f.Add([]byte(text))
	}
	f.Add([]byte("GET /v1/info HTTP/1.0\r\n\r\nGET"))
	f.Add([]byte("POST /v1/ports HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n\r\nHEAD / HTTP/1.1\r\nHost: x\r\n\r\n"))
	s := New(Config{Info: func() (api.Info, error) { return testInfo, nil }, Log: slog.New(slog.DiscardHandler)})
	f.Fuzz(func(t *testing.T, sent []byte) {
		client, socket := net.Pipe()
		_ = client.SetDeadline(time.Now().Add(10 * time.Second))
		c := &conn{Conn: socket, server: s, handler: s.routes()}
		served := make(chan struct{})
		go func() { defer close(served); defer socket.Close(); c.serve(context.Background()) }()
		go func() { _, _ = client.Write(sent); _, _ = io.Copy(io.Discard, client) }()
		time.AfterFunc(50*time.Millisecond, func() { client.Close() })
		select {
		case <-served:
		case <-time.After(10 * time.Second):
			t.Errorf("%q: it hangs", sent)
		}
	})
}
