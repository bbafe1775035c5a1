package apiserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"

	"rootlesskit/api"
	"rootlesskit/internal/nstest"
	"rootlesskit/internal/ports"
	"rootlesskit/internal/ports/portstest"
	"rootlesskit/internal/unixsock"
)

func TestMain(m *testing.M) {
	if socket := os.Getenv(peerEnv); socket != "" {
		os.Exit(peerMain(socket))
	}
	nstest.Main(m)
}

// harness is a server that runs until the test ends, and a way to talk to it.
type harness struct {
	socket string
	server *Server
	driver *portstest.Driver
	table  *ports.Table
	http   *http.Client
	log    *bytes.Buffer
	stop   context.CancelFunc
	done   chan error // Serve's result

	beforeServe func() // called when the socket listens
}

func (h *harness) client(t *testing.T) *api.Client {
	c := api.NewClient(h.socket)
	t.Cleanup(c.Close)
	return c
}

// start runs a server with the fake driver; with adjusts it first.
func start(t *testing.T, with ...func(*harness)) *harness {
	t.Helper()
	h := &harness{
		socket: filepath.Join(t.TempDir(), "api.sock"),
		driver: &portstest.Driver{},
		log:    &bytes.Buffer{},
		done:   make(chan error, 1),

		beforeServe: func() {},
	}
	h.table = ports.New(h.driver)
	h.server = New(Config{
		Info:  func() (api.Info, error) { return testInfo, nil },
		Ports: h.table,
		Log:   slog.New(slog.NewTextHandler(h.log, nil)),
	})
	for _, adjust := range with {
		adjust(h)
	}
	l, err := unixsock.Listen(t.Context(), h.socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	h.stop = stop
	h.beforeServe()
	go func() { h.done <- h.server.Serve(ctx, l) }()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", h.socket)
	}}
	h.http = &http.Client{Transport: &validating{transport, newRouter(t), t}}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := h.end(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return h
}

// end stops the server, if it runs, and returns Serve's result.
func (h *harness) end() error {
	h.stop()
	err := <-h.done
	h.done <- err
	return err
}

var testInfo = api.Info{
	APIVersion: api.APIVersion, Version: api.Version, StateDir: "/run/user/1000/rootlesskit", ChildPID: 4242,
	NetworkDriver: &api.NetworkDriverInfo{Driver: "slirp4netns", DNS: []string{"10.0.2.3"}, ChildIP: "10.0.2.100", DynamicChildIP: true, IPv6: true},
	PortDriver: &api.PortDriverInfo{
		Driver: "builtin", Protos: []api.Proto{"tcp", "udp"}, DisallowLoopbackChildIP: true,
		Extra: map[string]string{"sourceIPTransparentBackend": "nft"},
	},
}

// do makes a request and returns the status and the body.
func (h *harness) do(t *testing.T, method, path, body string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://rootlesskit"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := h.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(data)
}

// validating checks every response against the OpenAPI document, and the
// requests that succeed as well.
type validating struct {
	http.RoundTripper
	router routers.Router
	t      *testing.T
}

func newRouter(t *testing.T) routers.Router {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(api.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	router, err := legacy.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	return router
}

func (v *validating) RoundTrip(req *http.Request) (*http.Response, error) {
	var sent bytes.Buffer
	forValidation := req.Clone(req.Context())
	if req.Body != nil {
		req.Body = struct {
			io.Reader
			io.Closer
		}{io.TeeReader(req.Body, &sent), req.Body}
	}
	resp, err := v.RoundTripper.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	received, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(received))
	if err != nil {
		return nil, err
	}
	forValidation.Body = io.NopCloser(&sent)
	if err := v.check(forValidation, resp, received); err != nil {
		v.t.Errorf("%s %s, answered by %s %s: %v", req.Method, req.URL.Path, resp.Status, received, err)
	}
	return resp, nil
}

func (v *validating) check(req *http.Request, resp *http.Response, body []byte) error {
	common := req.Method == http.MethodHead || resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusMethodNotAllowed
	if common { // to all paths
		return nil
	}
	route, params, err := v.router.FindRoute(req)
	if err != nil {
		return fmt.Errorf("not in the document: %w", err)
	}
	in := &openapi3filter.RequestValidationInput{Request: req, PathParams: params, Route: route}
	var errs []error
	if resp.StatusCode < 300 {
		req.Header.Set("Content-Type", "application/json")
		errs = append(errs, openapi3filter.ValidateRequest(req.Context(), in))
	}
	out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: resp.StatusCode, Header: resp.Header}
	out.Options = &openapi3filter.Options{IncludeResponseStatus: true}
	out.SetBodyBytes(body)
	return errors.Join(append(errs, openapi3filter.ValidateResponse(req.Context(), out))...)
}
