package containers

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"rootlesskit/api"
)

// FuzzState has the states of containers, as hostile runtimes may send them.
func FuzzState(f *testing.F) {
	f.Add([]byte(`{"ociVersion":"1.0.2","fds":["seccompFd"],"pid":4422,"metadata":":8080:80/tcp","state":{"id":"c1","status":"creating","pid":4422}}`), 1)
	f.Add([]byte(`{"fds":["x","seccompFd"],"pid":1,"state":{"pid":-1}}`), 2)
	f.Add([]byte(`{"fds":["seccompFd"]}`), 0)
	f.Add([]byte(`[]`), 1)
	f.Fuzz(func(t *testing.T, raw []byte, n int) {
		var fds []int
		for i := range min(max(n, 0), maxFDs) {
			fds = append(fds, 1000+i)
		}
		s, fd, err := parseState(raw, fds)
		if (err == nil) != slices.Contains(fds, fd) || err != nil && fd != -1 {
			t.Fatalf("%q: descriptor %d of %v, %v", raw, fd, fds, err)
		}
		if err == nil && s.first() <= 0 {
			t.Errorf("%q: the first process is %d", raw, s.first())
		}
		ports, err := parseMappings(s.Metadata)
		if err != nil {
			return
		}
		for _, p := range ports {
			if again, err := api.ParsePortSpec(p.String()); err != nil || again != p {
				t.Errorf("%q: %v became %v, %v", s.Metadata, p, again, err)
			}
		}
	})
}

// FuzzSpec has the requests of container tools.
func FuzzSpec(f *testing.F) {
	f.Add([]byte(`{"id":"c1","socketPath":"/run/c.sock","portMapping":[{"protos":["tcp","udp"],"parentIP":"0.0.0.0","parentPort":8080,"childPort":80}],"ignoreBind":true}`))
	f.Add([]byte(`{"id":"","socketPath":"x"}`))
	f.Add([]byte(`{"id":"c1","socketPath":"x","portMapping":[{"protos":["sctp"],"parentPort":65536}]}`))
	f.Add([]byte(`{"id":"c1","socketPath":"x","portMapping":null}{}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		s, ports, err := readSpec(bytes.NewReader(body))
		if err != nil {
			return
		}
		if s.ID == "" || s.SocketPath == "" {
			t.Errorf("%q: %+v", body, s)
		}
		for _, p := range ports {
			if err := p.Validate(); err != nil {
				t.Errorf("%q: %v", body, err)
			}
		}
		echoed, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if again, _, err := readSpec(bytes.NewReader(echoed)); err != nil || strings.ToValidUTF8(again.ID, "") != strings.ToValidUTF8(s.ID, "") {
			t.Errorf("%q is echoed as %q: %v", body, echoed, err)
		}
	})
}
