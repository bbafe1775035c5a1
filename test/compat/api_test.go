package compat

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// request sends bytes to the API and reports the answers. The bytes of a key that
// begins with "cut" end early, and the client says so; the others are answered without.
func (s *subject) request(t *testing.T, key, raw string) {
	t.Helper()
	conn, err := net.Dial("unix", s.socket())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, raw); err != nil {
		s.say(key+".write", err.Error())
	}
	method, _, _ := strings.Cut(strings.TrimSpace(raw), " ")
	r := bufio.NewReader(conn)
	for n := 1; ; n++ {
		if n > strings.Count(raw, "Host: x") || strings.HasPrefix(key, "cut") {
			_ = conn.(*net.UnixConn).CloseWrite()
		}
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			s.saidf(key+".answers", "%d", n-1)
			return
		}
		s.sayResponse(fmt.Sprint(key, ".", n), resp)
	}
}

func (s *subject) sayResponse(key string, resp *http.Response) {
	body, err := io.ReadAll(resp.Body)
	s.saidf(key+".status", "%s %s", resp.Proto, resp.Status)
	s.saidf(key+".body is whole", "%v", err == nil)
	var fields map[string]any
	var list []map[string]any
	switch {
	case json.Unmarshal(body, &fields) == nil && fields != nil:
		s.sayFields(key+".body", fields)
		s.saidf(key+".body ends in a newline", "%v", bytes.HasSuffix(body, []byte("\n")))
	case json.Unmarshal(body, &list) == nil && len(list) > 0:
		for _, element := range list { // in no order, in the original
			s.sayFields(fmt.Sprint(key, ".body.", element["id"]), element)
		}
	default:
		s.say(key+".body", string(body))
	}
	for name, values := range resp.Header {
		if name != "Date" && name != "Content-Length" {
			s.saidf(key+".header "+name, "%q", values)
		}
	}
	s.saidf(key+".closes", "%v", resp.Close)
}

// sayFields reports an object field by field, so that one that is new does not
// hide the others.
func (s *subject) sayFields(key string, fields map[string]any) {
	for name, value := range fields {
		if nested, ok := value.(map[string]any); ok {
			s.sayFields(key+"."+name, nested)
		} else {
			b, _ := json.Marshal(value)
			s.say(key+"."+name, string(b))
		}
	}
}

func get(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n" }

func with(method, path, body string, headers ...string) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n%s", method, path, len(body), strings.Join(headers, ""), body)
}

func post(body string, headers ...string) string { return with("POST", "/v1/ports", body, headers...) }

const asJSON = "Content-Type: application/json\r\n"

// TestAPI compares what the drivers say of themselves, and the life of a port.
func TestAPI(t *testing.T) {
	forPairs(t, func(t *testing.T, s *subject, flags []string) {
		ports := s.namePorts(t, "$PORT", "$UDP", "$THIRD")
		s.start(t, flags...)
		s.nameChild(t)
		s.request(t, "info", get("/v1/info"))
		s.request(t, "none", get("/v1/ports"))
		spec := func(proto, ip, port string) string {
			return ports.Replace(fmt.Sprintf(`{"proto":%q,"parentIP":%q,"parentPort":%s,"childPort":80}`, proto, ip, port))
		}
		for i, args := range [][3]string{
			{"tcp", "127.0.0.1", "$PORT"}, {"tcp", "127.0.0.1", "$PORT"}, {"tcp4", "127.0.0.1", "$PORT"}, {"udp", "127.0.0.1", "$UDP"},
			{"tcp", "", "$THIRD"}, {"tcp6", "::1", "$PORT"}, {"udp4", "0.0.0.0", "$PORT"}, {"sctp", "", "1"}, {"tcp", "192.0.2.77", "$PORT"}, {"", "127.0.0.1", "$UDP"},
		} {
			s.request(t, fmt.Sprint("add ", i, " ", args[0], " ", args[1]), post(spec(args[0], args[1], args[2]), asJSON))
		}
		s.request(t, "add with child", post(ports.Replace(`{"proto":"tcp","parentIP":"127.0.0.1","parentPort":$UDP,"childPort":80,"childIP":"127.0.0.1"}`), asJSON))
		s.request(t, "list", get("/v1/ports"))
		for _, id := range []string{"1", "1", "7777", "abc", "0", "-1", "99999999999999999999", ""} {
			s.request(t, "remove "+id, with("DELETE", "/v1/ports/"+id, ""))
		}
		s.request(t, "list again", get("/v1/ports"))
		s.request(t, "add again", post(spec("tcp", "127.0.0.1", "$PORT"), asJSON))
	})
}

// TestRawHTTP compares which requests get which answer.
func TestRawHTTP(t *testing.T) {
	compare(t, func(t *testing.T, s *subject) {
		ports := s.namePorts(t, "$PORT")
		s.start(t, "--net=none", "--port-driver=builtin")
		s.nameChild(t)
		for _, key := range slices.Sorted(maps.Keys(rawRequests)) {
			s.request(t, key, ports.Replace(rawRequests[key]))
		}
		s.request(t, "afterwards", get("/v1/ports"))
	})
}

var (
	spec = `{"proto":"tcp","parentIP":"127.0.0.1","parentPort":$PORT,"childPort":80}`
	info = get("/v1/info")
)

var rawRequests = map[string]string{
	"two at once":         info + info,
	"HTTP/1.0":            "GET /v1/info HTTP/1.0\r\n\r\n",
	"HTTP/1.0 kept":       "GET /v1/info HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + info,
	"no Host":             "GET /v1/info HTTP/1.1\r\n\r\n",
	"two Hosts":           "GET /v1/info HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
	"empty Host":          "GET /v1/info HTTP/1.1\r\nHost:\r\n\r\n",
	"absolute":            "GET http://x/v1/info HTTP/1.1\r\nHost: x\r\n\r\n",
	"bare line feeds":     "GET /v1/info HTTP/1.1\nHost: x\n\n",
	"Connection: close":   "GET /v1/info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" + info,
	"HTTP/2.0":            "GET /v1/info HTTP/2.0\r\nHost: x\r\n\r\n",
	"HTTP/3":              "GET /v1/info HTTP/3\r\nHost: x\r\n\r\n",
	"preface of HTTP/2":   "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	"upgrade":             "GET /v1/info HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
	"nonsense":            "nonsense\r\n\r\n",
	"cut: nothing":        "",
	"an empty line first": "\r\n" + info,
	"a bad header":        "GET /v1/info HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
	"a space in a name":   "GET /v1/info HTTP/1.1\r\nHost: x\r\nbad name: y\r\n\r\n",
	"a folded header":     "GET /v1/info HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
	"a large header":      "GET /v1/info HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("b", 100_000) + "\r\n\r\n",
	"too large a header":  "GET /v1/info HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("b", 2_000_000) + "\r\n\r\n",
	"HEAD":                "HEAD /v1/info HTTP/1.1\r\nHost: x\r\n\r\n",
	"HEAD of ports":       "HEAD /v1/ports HTTP/1.1\r\nHost: x\r\n\r\n",
	"OPTIONS":             "OPTIONS /v1/info HTTP/1.1\r\nHost: x\r\n\r\n",
	"OPTIONS *":           "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
	"PUT":                 with("PUT", "/v1/ports", spec, asJSON),
	"PATCH":               with("PATCH", "/v1/info", "", asJSON),
	"POST to info":        with("POST", "/v1/info", spec, asJSON),
	"DELETE of all":       with("DELETE", "/v1/ports", ""),
	"CONNECT":             "CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
	"lower case":          "get /v1/info HTTP/1.1\r\nHost: x\r\n\r\n",
	"/":                   get("/"), "/v1": get("/v1"), "/v1/": get("/v1/"), "/v2/info": get("/v2/info"), "/info": get("/info"),
	"/v1/info/": get("/v1/info/"), "//v1/info": get("//v1/info"), "/v1/./info": get("/v1/./info"), "/v1/x/../info": get("/v1/x/../info"),
	"/v1//info": get("/v1//info"), "/V1/info": get("/V1/info"), "/v1/inf%6f": get("/v1/inf%6f"), "/v1%2finfo": get("/v1%2finfo"), "/v1/info?x=y": get("/v1/info?x=y"),
	"/v1/ports/": get("/v1/ports/"), "GET of a port": get("/v1/ports/1"), "/v1/ports/1/": with("DELETE", "/v1/ports/1/", ""), "/v1/ports/%31": with("DELETE", "/v1/ports/%31", ""),
	"DELETE of +1": with("DELETE", "/v1/ports/+1", ""), "DELETE of 01": with("DELETE", "/v1/ports/01", ""), "DELETE of 1.0": with("DELETE", "/v1/ports/1.0", ""),
	"DELETE with a body":          with("DELETE", "/v1/ports/1", spec, asJSON),
	"no path":                     "GET HTTP/1.1\r\nHost: x\r\n\r\n",
	"no body":                     post("", asJSON),
	"null":                        post("null", asJSON),
	"an array":                    post("[]", asJSON),
	"a string":                    post(`"x"`, asJSON),
	"no JSON":                     post("nonsense", asJSON),
	"an empty object":             post("{}", asJSON),
	"half an object":              post(`{"proto":"tcp"`, asJSON),
	"rubbish after it":            post(spec+"x", asJSON),
	"two objects":                 post(spec+spec, asJSON),
	"an unknown field":            post(`{"proto":"tcp","nonsense":1}`, asJSON),
	"other case":                  post(`{"PROTO":"tcp","ParentPort":70000}`, asJSON),
	"a text for a port":           post(`{"proto":"tcp","parentPort":"80","childPort":80}`, asJSON),
	"port 0":                      post(`{"proto":"tcp","parentPort":0,"childPort":80}`, asJSON),
	"port -1":                     post(`{"proto":"tcp","parentPort":-1,"childPort":80}`, asJSON),
	"port 65536":                  post(`{"proto":"tcp","parentPort":65536,"childPort":80}`, asJSON),
	"child port 0":                post(`{"proto":"tcp","parentIP":"127.0.0.1","parentPort":9,"childPort":0}`, asJSON),
	"child port 65536":            post(`{"proto":"tcp","parentIP":"127.0.0.1","parentPort":9,"childPort":65536}`, asJSON),
	"port 1.5":                    post(`{"proto":"tcp","parentPort":1.5,"childPort":80}`, asJSON),
	"a bad address":               post(`{"proto":"tcp","parentIP":"nonsense","parentPort":9,"childPort":80}`, asJSON),
	"a bad child address":         post(`{"proto":"tcp","parentIP":"127.0.0.1","parentPort":10009,"childPort":80,"childIP":"nonsense"}`, asJSON),
	"a bad protocol":              post(`{"proto":"icmp","parentPort":9,"childPort":80}`, asJSON),
	"TCP in capitals":             post(`{"proto":"TCP","parentIP":"127.0.0.1","parentPort":10008,"childPort":80}`, asJSON),
	"tcp4 on ::1":                 post(`{"proto":"tcp4","parentIP":"::1","parentPort":10007,"childPort":80}`, asJSON),
	"tcp6 on 127.0.0.1":           post(`{"proto":"tcp6","parentIP":"127.0.0.1","parentPort":10006,"childPort":80}`, asJSON),
	"a privileged port":           post(`{"proto":"tcp","parentIP":"127.0.0.1","parentPort":80,"childPort":80}`, asJSON),
	"no type":                     post(`{"proto":"icmp","parentPort":9,"childPort":80}`),
	"another type":                post(`{"proto":"icmp","parentPort":9,"childPort":80}`, "Content-Type: text/plain\r\n"),
	"a type with a charset":       post(`{"proto":"icmp","parentPort":9,"childPort":80}`, "Content-Type: application/json; charset=utf-8\r\n"),
	"chunks":                      "POST /v1/ports HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n" + asJSON + "\r\n4\r\nnull\r\n0\r\n\r\n",
	"cut: bad chunks":             "POST /v1/ports HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n" + asJSON + "\r\nxyz\r\n",
	"chunks and a length":         "POST /v1/ports HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n" + asJSON + "\r\n4\r\nnull\r\n0\r\n\r\n",
	"an unknown encoding":         "POST /v1/ports HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n" + asJSON + "\r\n",
	"two lengths":                 "POST /v1/ports HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n" + asJSON + "\r\nnull",
	"a bad length":                "POST /v1/ports HTTP/1.1\r\nHost: x\r\nContent-Length: -4\r\n" + asJSON + "\r\nnull",
	"cut: a body that ends early": "POST /v1/ports HTTP/1.1\r\nHost: x\r\nContent-Length: 400\r\n" + asJSON + "\r\nnull",
	"no length":                   "POST /v1/ports HTTP/1.1\r\nHost: x\r\n" + asJSON + "\r\nnull",
	"Expect: 100-continue":        post("null", asJSON, "Expect: 100-continue\r\n"),
	"Expect: nonsense":            post("null", asJSON, "Expect: nonsense\r\n"),
	"a large body":                post(`{"proto":"`+strings.Repeat("x", 3_000_000)+`"}`, asJSON),
	"GET with a body":             with("GET", "/v1/info", "body") + info,
	"Accept: text/html":           "GET /v1/info HTTP/1.1\r\nHost: x\r\nAccept: text/html\r\nAccept-Encoding: gzip\r\n\r\n",
}
