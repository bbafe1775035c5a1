package api_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"rootlesskit/api"
)

// serve answers on a Unix socket until the test ends, and returns a client.
func serve(t *testing.T, handler http.HandlerFunc) *api.Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "api.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	client := api.NewClient(socket)
	t.Cleanup(func() { client.Close(); server.Close(); <-done })
	return client
}

// answer is a handler that checks the request and sends one response.
func answer(t *testing.T, wantRequest string, status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		if got := r.Method + " " + r.RequestURI + " " + string(data); got != wantRequest {
			t.Errorf("request %q, want %q", got, wantRequest)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestClientInfo(t *testing.T) {
	c := serve(t, answer(t, "GET /v1/info ", 200, `{"apiVersion":"1.1.3","childPID":42,"unknown":{}}`))
	info, err := c.Info(t.Context())
	if err != nil || info.APIVersion != "1.1.3" || info.ChildPID != 42 || info.NetworkDriver != nil {
		t.Errorf("got %+v, %v", info, err)
	}
}

func TestClientListPorts(t *testing.T) {
	c := serve(t, answer(t, "GET /v1/ports ", 200, "null")) // what older servers send for none
	if list, err := c.ListPorts(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("got %v, %v", list, err)
	}
}

func TestClientListPortsDetails(t *testing.T) {
	c := serve(t, answer(t, "GET /v1/ports?details=true ", 200, `[{"id":3,"spec":{"proto":"tcp"},"details":{"accepted":7}}]`))
	list, err := c.ListPortsDetails(t.Context())
	if err != nil || len(list) != 1 || list[0].ID != 3 || list[0].Details.Accepted != 7 {
		t.Errorf("got %+v, %v", list, err)
	}
}

func TestClientAddPort(t *testing.T) {
	const spec = `{"proto":"tcp","parentPort":8080,"childPort":80}`
	c := serve(t, answer(t, "POST /v1/ports "+spec, 201, `{"id":1,"spec":`+spec+`}`))
	want := api.PortSpec{Proto: "tcp", ParentPort: 8080, ChildPort: 80}
	if got, err := c.AddPort(t.Context(), want); err != nil || got.ID != 1 || got.Spec != want {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestClientRemovePort(t *testing.T) {
	c := serve(t, answer(t, "DELETE /v1/ports/12 ", 200, ""))
	if err := c.RemovePort(t.Context(), 12); err != nil {
		t.Error(err)
	}
}

func TestClientErrors(t *testing.T) {
	for _, tt := range []struct {
		status     int
		body, want string
	}{
		{400, `{"message":"unknown id: 1"}` + "\n", "unknown id: 1"},
		{500, `{"message":"boom"}`, "boom"},
		{404, "404 page not found\n", `unexpected HTTP status Not Found, body="404 page not found\n"`},
		{500, "{}", `unexpected HTTP status Internal Server Error, body="{}"`},
	} {
		c := serve(t, answer(t, "DELETE /v1/ports/1 ", tt.status, tt.body))
		err := c.RemovePort(t.Context(), 1)
		var refusal *api.Error
		if !errors.As(err, &refusal) || refusal.StatusCode != tt.status || err.Error() != tt.want {
			t.Errorf("%d %q: error %v, want %s", tt.status, tt.body, err, tt.want)
		}
	}
}

func TestClientUndecodableResponse(t *testing.T) {
	c := serve(t, answer(t, "GET /v1/info ", 200, "garbage"))
	_, err := c.Info(t.Context())
	const want = "decoding the response to GET /v1/info: invalid character 'g' looking for beginning of value"
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestClientWithoutAServer(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "api.sock")
	_, err := api.NewClient(socket).Info(t.Context())
	want := `Get "http://rootlesskit/v1/info": dial unix ` + socket + ": connect: no such file or directory"
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestClientStopsWithItsContext(t *testing.T) {
	c := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Info(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want context.DeadlineExceeded", err)
	}
}
