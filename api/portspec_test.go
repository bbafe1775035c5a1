package api_test

import (
	"encoding/json"
	"strings"
	"testing"

	"rootlesskit/api"
)

func TestParsePortSpec(t *testing.T) {
	for s, want := range map[string]api.PortSpec{
		"127.0.0.1:8080:80/tcp":            {Proto: "tcp", ParentIP: "127.0.0.1", ParentPort: 8080, ChildPort: 80},
		"8080:80":                          {Proto: "tcp", ParentPort: 8080, ChildPort: 80},
		"8080:80/udp":                      {Proto: "udp", ParentPort: 8080, ChildPort: 80},
		":8080:80/udp6":                    {Proto: "udp6", ParentPort: 8080, ChildPort: 80},
		"127.0.0.1:8080:10.0.2.100:80/tcp": {Proto: "tcp", ParentIP: "127.0.0.1", ParentPort: 8080, ChildIP: "10.0.2.100", ChildPort: 80},
		":8080:10.0.2.100:80/tcp":          {Proto: "tcp", ParentPort: 8080, ChildIP: "10.0.2.100", ChildPort: 80},
		"[::1]:8080:80/tcp6":               {Proto: "tcp6", ParentIP: "::1", ParentPort: 8080, ChildPort: 80},
		"[::]:8080:[fd00::2]:80/tcp":       {Proto: "tcp", ParentIP: "::", ParentPort: 8080, ChildIP: "fd00::2", ChildPort: 80},
		"[::ffff:127.0.0.1]:1:2/udp":       {Proto: "udp", ParentIP: "::ffff:127.0.0.1", ParentPort: 1, ChildPort: 2},
		"[127.0.0.1]:1:[10.0.0.1]:2/tcp4":  {Proto: "tcp4", ParentIP: "127.0.0.1", ParentPort: 1, ChildIP: "10.0.0.1", ChildPort: 2},
		"[]:1::2/tcp":                      {Proto: "tcp", ParentPort: 1, ChildPort: 2},
		" 127.0.0.1: 8080:80/tcp":          {Proto: "tcp", ParentIP: "127.0.0.1", ParentPort: 8080, ChildPort: 80},
		"0.0.0.0:0:65536/sctp":             {Proto: "sctp", ParentIP: "0.0.0.0", ParentPort: 0, ChildPort: 65536},
	} {
		if got, err := api.ParsePortSpec(s); err != nil || got != want {
			t.Errorf("%q: got %#v, %v; want %#v", s, got, err, want)
		}
	}
}

func TestParsePortSpecErrors(t *testing.T) {
	for s, want := range map[string]string{
		"":                          `missing proto in PortSpec string: ""`,
		"127.0.0.1:8080:80":         `missing proto in PortSpec string: "127.0.0.1:8080:80": did you mean "127.0.0.1:8080:80/tcp"?`,
		"127.0.0.1:8080:80/":        `invalid PortSpec string: "127.0.0.1:8080:80/": unknown proto: ""`,
		"127.0.0.1:8080:80/TCP":     `invalid PortSpec string: "127.0.0.1:8080:80/TCP": unknown proto: "TCP"`,
		"127.0.0.1:8080:80/tcp ":    `invalid PortSpec string: "127.0.0.1:8080:80/tcp ": unknown proto: "tcp "`,
		"a/b/c":                     `invalid PortSpec string: "a/b/c": unknown proto: "c"`,
		"/tcp":                      `unexpected PortSpec string: "/tcp"`,
		"127.0.0.1:80/tcp":          `unexpected PortSpec string: "127.0.0.1:80/tcp"`,
		"::1:8080:80/tcp":           `unexpected PortSpec string: "::1:8080:80/tcp"`,
		"8080/tcp":                  `unexpected PortSpec string: "8080/tcp": not of the form [PARENTIP]:PARENTPORT:[CHILDIP:]CHILDPORT/PROTO`,
		"8080":                      `missing proto in PortSpec string: "8080": the form is [PARENTIP]:PARENTPORT:`,
		"localhost:8080:80/tcp":     `unexpected ParentIP in PortSpec string: "localhost:8080:80/tcp"`,
		"127.0.0.01:8080:80/tcp":    `unexpected ParentIP in PortSpec string: "127.0.0.01:8080:80/tcp"`,
		"[fe80::1%lo]:8080:80/tcp":  `unexpected ParentIP in PortSpec string: "[fe80::1%lo]:8080:80/tcp"`,
		"[::1]x:8080:80/tcp":        `unexpected ParentIP in PortSpec string: "[::1]x:8080:80/tcp"`,
		"[[::1]]:8080:80/tcp":       `unexpected ParentIP in PortSpec string: "[[::1]]:8080:80/tcp"`,
		"127.0.0.1:8080:foo:80/tcp": `unexpected ChildIP in PortSpec string: "127.0.0.1:8080:foo:80/tcp"`,
		"127.0.0.1:x:80/tcp":        `unexpected ParentPort in PortSpec string: "127.0.0.1:x:80/tcp": strconv.Atoi: parsing "x": invalid syntax`,
		"127.0.0.1::80/tcp":         `unexpected ParentPort in PortSpec string: "127.0.0.1::80/tcp": strconv.Atoi: parsing "": invalid syntax`,
		"127.0.0.1:0x50:80/tcp":     `unexpected ParentPort in PortSpec string: "127.0.0.1:0x50:80/tcp": strconv.Atoi: parsing "0x50": invalid syntax`,
		"127.0.0.1:8080:80-90/tcp":  `unexpected ChildPort in PortSpec string: "127.0.0.1:8080:80-90/tcp": strconv.Atoi: parsing "80-90": invalid syntax`,
	} {
		_, err := api.ParsePortSpec(s)
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: error %v, want %s", s, err, want)
		}
	}
}

func TestValidate(t *testing.T) {
	valid := api.PortSpec{Proto: "tcp", ParentPort: 1, ChildPort: 65535}
	if err := valid.Validate(); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*api.PortSpec){
		`unknown proto: ""`:              func(s *api.PortSpec) { s.Proto = "" },
		`invalid ParentIP: "[::1]"`:      func(s *api.PortSpec) { s.ParentIP = "[::1]" },
		`invalid ParentIP: "fe80::1%lo"`: func(s *api.PortSpec) { s.ParentIP = "fe80::1%lo" },
		`invalid ChildIP: "localhost"`:   func(s *api.PortSpec) { s.ChildIP = "localhost" },
		"invalid ParentPort: 0":          func(s *api.PortSpec) { s.ParentPort = 0 },
		"invalid ParentPort: -5":         func(s *api.PortSpec) { s.ParentPort = -5 },
		"invalid ChildPort: 65536":       func(s *api.PortSpec) { s.ChildPort = 65536 },
	} {
		spec := valid
		change(&spec)
		if err := spec.Validate(); err == nil || err.Error() != want {
			t.Errorf("%#v: error %v, want %s", spec, err, want)
		}
	}
}

func TestPortSpecJSON(t *testing.T) {
	spec := api.PortSpec{Proto: "tcp", ParentIP: "127.0.0.1", ParentPort: 8080, ChildPort: 80, ChildIP: "10.0.2.100"}
	got, err := json.Marshal(api.PortStatus{ID: 1, Spec: spec})
	const want = `{"id":1,"spec":{"proto":"tcp","parentIP":"127.0.0.1","parentPort":8080,"childPort":80,"childIP":"10.0.2.100"}}`
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
	if got, _ := json.Marshal(api.PortSpec{}); string(got) != "{}" {
		t.Errorf("an empty spec is %s", got)
	}
}

func FuzzParsePortSpec(f *testing.F) {
	for _, seed := range []string{"127.0.0.1:8080:80/tcp", "[::1]:8080:[fd00::2]:80/udp6", ":1:2/sctp", "[[:]:]:1/tcp", "/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		spec, err := api.ParsePortSpec(s)
		if err != nil {
			return
		}
		again, err := api.ParsePortSpec(spec.String())
		if err != nil || again != spec {
			t.Errorf("%q: %#v is written as %q, which is %#v, %v", s, spec, spec.String(), again, err)
		}
	})
}
