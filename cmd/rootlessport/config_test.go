package main

import (
	"net/netip"
	"strings"
	"testing"
)

func FuzzConfig(f *testing.F) {
	f.Add(`{"Mappings":[{"host_ip":"","container_port":80,"host_port":8080,"range":1,"protocol":"tcp,udp"}],"NetNSPath":"/n","ExitFD":3,"ReadyFD":4,"TmpDir":"/t","ChildIP":"10.89.0.2","ContainerID":"c","RootlessCNI":true}`)
	f.Add(`{"Mappings":[{"container_port":65535,"host_port":65535,"range":2,"protocol":"tcp"}],"NetNSPath":"/n"}`)
	f.Add(`{"Mappings":[{"container_port":-1,"host_port":9223372036854775807,"range":-5,"protocol":","}],"NetNSPath":"/n"}`)
	f.Add(`[]`)
	f.Fuzz(func(t *testing.T, text string) {
		cfg, err := readConfig(strings.NewReader(text))
		if err != nil {
			return
		}
		if cfg.RootlessCNI && strings.Contains(cfg.ContainerID, "/") {
			t.Errorf("the socket %q leaves its directory", cfg.ContainerID)
		}
		specs, err := cfg.specs()
		if err != nil {
			return
		}
		for _, s := range specs {
			if s.ParentPort < 1 || s.ParentPort > maxPort || s.ChildPort < 1 || s.ChildPort > maxPort || s.ParentIP == "" {
				t.Errorf("%q publishes %+v", text, s)
			}
			if s.Proto != "tcp" && s.Proto != "udp" {
				t.Errorf("%q has the protocol %q", text, s.Proto)
			}
		}
	})
}

func FuzzRequest(f *testing.F) {
	for _, packet := range []string{`"10.89.0.2"`, `""`, `"fd89::2"`, `null`, `{`, `"::ffff:10.0.0.1"`} {
		f.Add([]byte(packet))
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		ip, err := parseRequest(packet)
		if err == nil && (ip == netip.Addr{} || ip.Is4In6()) {
			t.Errorf("%q gives %v", packet, ip)
		}
	})
}
