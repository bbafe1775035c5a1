package apiserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"rootlesskit/api"
	"rootlesskit/internal/ports"
	"rootlesskit/internal/ports/portstest"
)

// check makes a request, and compares the answer with "STATUS BODY".
func check(t *testing.T, h *harness, method, path, body, want string) *http.Response {
	t.Helper()
	resp, got := h.do(t, method, path, body)
	if got = resp.Status[:3] + " " + got; got != want {
		t.Errorf("%s %s %s\n got %s\nwant %s", method, path, body, got, want)
	}
	if ct := resp.Header.Get("Content-Type"); len(got) > 4 && ct != "application/json" {
		t.Errorf("%s %s: content type %q", method, path, ct)
	}
	return resp
}

func message(status, text string) string {
	b, _ := json.Marshal(map[string]string{"message": text})
	return status + " " + string(b)
}

func TestInfo(t *testing.T) {
	h := start(t)
	resp := check(t, h, "GET", "/v1/info", "", `200 {"apiVersion":"`+api.APIVersion+`","version":"`+api.Version+`","stateDir":"/run/user/1000/rootlesskit","childPID":4242,`+
		`"networkDriver":{"driver":"slirp4netns","dns":["10.0.2.3"],"childIP":"10.0.2.100","dynamicChildIP":true,"ipv6":true},`+
		`"portDriver":{"driver":"builtin","protos":["tcp","udp"],"disallowLoopbackChildIP":true,"extra":{"sourceIPTransparentBackend":"nft"}}}`)
	if resp.ContentLength <= 0 {
		t.Error("no content length")
	}
	check(t, h, "HEAD", "/v1/info", "", "200 ")
}

func TestInfoFails(t *testing.T) {
	h := start(t, func(h *harness) {
		h.server.cfg.Info = func() (api.Info, error) { return api.Info{}, errors.New("the child has gone") }
	})
	check(t, h, "GET", "/v1/info", "", message("500", "the child has gone"))
}

func TestPorts(t *testing.T) {
	h := start(t)
	const (
		first  = `{"proto":"tcp","parentIP":"127.0.0.1","parentPort":8080,"childPort":80,"childIP":"10.0.2.100"}`
		second = `{"proto":"udp","parentPort":53,"childPort":5353}`
	)
	check(t, h, "GET", "/v1/ports", "", "200 []")
	check(t, h, "POST", "/v1/ports", first, `201 {"id":1,"spec":`+first+`}`)
	check(t, h, "POST", "/v1/ports", second+"\n", `201 {"id":2,"spec":`+second+`}`)
	check(t, h, "GET", "/v1/ports", "", `200 [{"id":1,"spec":`+first+`},{"id":2,"spec":`+second+`}]`)
	check(t, h, "GET", "/v1/ports?details=false", "", `200 [{"id":1,"spec":`+first+`},{"id":2,"spec":`+second+`}]`)
	check(t, h, "GET", "/v1/ports?details=true", "", `200 [{"id":1,"spec":`+first+
		`,"details":{"accepted":8080,"refused":0,"active":0,"bytesIn":0,"bytesOut":0,"acceptErrors":0}},{"id":2,"spec":`+second+`}]`)
	check(t, h, "POST", "/v1/ports", first, message("400", "conflict with ID 1"))
	check(t, h, "DELETE", "/v1/ports/1", "", "200 ")
	check(t, h, "DELETE", "/v1/ports/1", "", message("400", "unknown id: 1"))
	check(t, h, "POST", "/v1/ports", first, `201 {"id":3,"spec":`+first+`}`)
	check(t, h, "DELETE", "/v1/ports/2", "", "200 ")
	check(t, h, "DELETE", "/v1/ports/3", "", "200 ")
	check(t, h, "GET", "/v1/ports", "", "200 []")
	if n := h.driver.OpenPorts(); n != 0 {
		t.Errorf("%d ports remain open", n)
	}
}

func TestRefusedRequests(t *testing.T) {
	h := start(t)
	h.driver.OnForward = func(context.Context, api.PortSpec) error {
		return errors.New("listen tcp 127.0.0.1:8099: bind: address already in use")
	}
	h.driver.OnClose = func(api.PortSpec) error { t.Error("a port was closed"); return nil }
	for _, tt := range []struct{ method, path, body, want string }{
		{"DELETE", "/v1/ports/1", "", "unknown id: 1"},
		{"DELETE", "/v1/ports/-1", "", "unknown id: -1"},
		{"DELETE", "/v1/ports/abc", "", `bad id abc: strconv.Atoi: parsing "abc": invalid syntax`},
		{"DELETE", "/v1/ports/99999999999999999999", "", `bad id 99999999999999999999: strconv.Atoi: parsing "99999999999999999999": value out of range`},
		{"GET", "/v1/ports?details=maybe", "", `bad details: "maybe" is neither true nor false`},
		{"POST", "/v1/ports", "", "bad request body: it is empty, expected a JSON object"},
		{"POST", "/v1/ports", "{", "bad request body: unexpected EOF"},
		{"POST", "/v1/ports", "foo", "bad request body: invalid character 'o' in literal false (expecting 'a')"},
		{"POST", "/v1/ports", "[]", "bad request body: json: cannot unmarshal array into Go value of type api.PortSpec"},
		{"POST", "/v1/ports", `{"parentPort":"80"}`, "bad request body: json: cannot unmarshal string into Go struct field PortSpec.parentPort of type int"},
		{"POST", "/v1/ports", "{} {}", "bad request body: data after the JSON object"},
		{"POST", "/v1/ports", "{} x", "bad request body: after the JSON object: invalid character 'x' looking for beginning of value"},
		{"POST", "/v1/ports", "{}", `unknown proto: ""`},
		{"POST", "/v1/ports", "null", `unknown proto: ""`},
		{"POST", "/v1/ports", `{"proto":"tcp"}`, "invalid ParentPort: 0"},
		{"POST", "/v1/ports", `{"proto":"sctp","parentPort":1,"childPort":1}`, "unsupported port protocol sctp"},
		{"POST", "/v1/ports", `{"proto":"tcp","parentPort":8099,"childPort":1}`, "listen tcp 127.0.0.1:8099: bind: address already in use"},
	} {
		check(t, h, tt.method, tt.path, tt.body, message("400", tt.want))
	}
}

func TestUnknownFieldsAreIgnored(t *testing.T) {
	h := start(t)
	check(t, h, "POST", "/v1/ports", `{"proto":"tcp","parentPort":1,"childPort":2,"comment":{}}`,
		`201 {"id":1,"spec":{"proto":"tcp","parentPort":1,"childPort":2}}`)
}

func TestTooLongBody(t *testing.T) {
	h := start(t)
	body := `{"proto":"` + strings.Repeat("x", maxBody) + `"}`
	check(t, h, "POST", "/v1/ports", body, message("413", "bad request body: http: request body too large"))
}

func TestNoPortDriver(t *testing.T) {
	h := start(t, func(h *harness) { h.server.cfg.Ports = nil })
	want := message("400", "no PortDriver is available")
	check(t, h, "GET", "/v1/ports", "", want)
	check(t, h, "POST", "/v1/ports", "foo", want)
	check(t, h, "DELETE", "/v1/ports/abc", "", want)
}

func TestUnknownPathsAndMethods(t *testing.T) {
	h := start(t)
	check(t, h, "GET", "/", "", message("404", "no such path: /"))
	check(t, h, "GET", "/v1/info/", "", message("404", "no such path: /v1/info/"))
	check(t, h, "DELETE", "/v1/ports/", "", message("404", "no such path: /v1/ports/"))
	check(t, h, "GET", "/v2/info", "", message("404", "no such path: /v2/info"))
	resp := check(t, h, "DELETE", "/v1/ports", "", message("405", "/v1/ports has no method DELETE, only GET, POST"))
	if allow := resp.Header.Get("Allow"); allow != "GET, POST" {
		t.Errorf("Allow: %q", allow)
	}
	check(t, h, "GET", "/v1/ports/2", "", message("405", "/v1/ports/2 has no method GET, only DELETE"))
	check(t, h, "PUT", "/v1/info", "{}", message("405", "/v1/info has no method PUT, only GET"))
}

func TestOpenAPIIsServed(t *testing.T) {
	h := start(t)
	resp, body := h.do(t, "GET", "/v1/openapi.yaml", "")
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/yaml" || !bytes.Equal([]byte(body), api.OpenAPI) {
		t.Errorf("got %s %v", resp.Status, resp.Header)
	}
}

// The client and the server agree.
func TestClient(t *testing.T) {
	h := start(t)
	c := h.client(t)
	ctx := t.Context()
	if info, err := c.Info(ctx); err != nil || info.ChildPID != testInfo.ChildPID || info.PortDriver.Driver != "builtin" {
		t.Errorf("got %+v, %v", info, err)
	}
	spec := api.PortSpec{Proto: "tcp", ParentIP: "::1", ParentPort: 8080, ChildPort: 80}
	if status, err := c.AddPort(ctx, spec); err != nil || status.ID != 1 || status.Spec != spec {
		t.Errorf("got %+v, %v", status, err)
	}
	if list, err := c.ListPorts(ctx); err != nil || len(list) != 1 || list[0].Spec != spec || list[0].Details != nil {
		t.Errorf("got %+v, %v", list, err)
	}
	if list, err := c.ListPortsDetails(ctx); err != nil || len(list) != 1 || list[0].Details.Accepted != 8080 {
		t.Errorf("got %+v, %v", list, err)
	}
	if err := c.RemovePort(ctx, 1); err != nil {
		t.Error(err)
	}
	err := c.RemovePort(ctx, 1)
	var refusal *api.Error
	if !errors.As(err, &refusal) || refusal.StatusCode != 400 || refusal.Message != "unknown id: 1" {
		t.Errorf("error %#v", err)
	}
}

// Whatever the body is, the answer is JSON with one of three statuses.
func FuzzAddPort(f *testing.F) {
	for _, seed := range []string{"", "null", `{"proto":"tcp","parentPort":1,"childPort":2}`, `{"proto":"udp","parentIP":"::1"}x`, "[[[["} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		table := ports.New(&portstest.Driver{})
		handler := New(Config{Ports: table, Log: slog.New(slog.DiscardHandler)}).routes()
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("POST", "/v1/ports", bytes.NewReader(body)))
		var answer struct {
			ID      int    `json:"id"`
			Message string `json:"message"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			t.Fatal(err)
		}
		published := len(table.List(false)) == 1
		switch w.Code {
		case http.StatusCreated:
			if answer.ID != 1 || !published {
				t.Errorf("%q: %s", body, w.Body)
			}
		case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
			if answer.Message == "" || published {
				t.Errorf("%q: %s", body, w.Body)
			}
		default:
			t.Errorf("%q: status %d", body, w.Code)
		}
	})
}
