package test

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"rootlesskit/api"
)

// TestAuto: the choice and its reason are in the log and in the info.
func TestAuto(t *testing.T) {
	for _, tt := range []struct {
		flags      string
		net, ports string
	}{
		{"--net=auto --port-driver=auto", "gvisor-tap-vsock", "builtin"},
		{"--net=auto", "gvisor-tap-vsock", ""},
		{"--net=auto --port-driver=slirp4netns", "slirp4netns", "slirp4netns"},
		{"--net=auto --port-driver=implicit", "pasta", ""},
		{"--net=pasta --port-driver=auto", "pasta", "pesto"},
		{"--net=pasta --port-driver=auto --pesto-binary=nosuch", "pasta", ""},
		{"--net=none --port-driver=auto", "none", "builtin"},
		{"--port-driver=auto", "", ""},
	} {
		t.Run(tt.flags, func(t *testing.T) {
			t.Parallel()
			k := startKit(t, append(strings.Fields(tt.flags), "--disable-host-loopback", "sleep", "infinity")...)
			var info api.Info
			if err := json.Unmarshal([]byte(k.mustCtl(t, "info", "--json")), &info); err != nil {
				t.Fatal(err)
			}
			var net api.NetworkDriverInfo
			var ports api.PortDriverInfo
			if info.NetworkDriver != nil {
				net = *info.NetworkDriver
			}
			if info.PortDriver != nil {
				ports = *info.PortDriver
			}
			if net.Driver != tt.net || ports.Driver != tt.ports {
				t.Errorf("chose %q and %q: %s", net.Driver, ports.Driver, k.output)
			}
			if asked := strings.Contains(tt.flags, "--net=auto"); asked != (net.Reason != "") {
				t.Errorf("reason of the network: %q", net.Reason)
			}
			if asked := strings.Contains(tt.flags, "--port-driver=auto"); ports.Driver != "" && asked != (ports.Reason != "") {
				t.Errorf("reason of the port driver: %q", ports.Reason)
			}
			poll(t, "the log", func() bool { return strings.Contains(k.output.String(), "chose drivers") })
			k.terminate(t)
			k.await(t)
			if n := strings.Count(k.output.String(), "chose drivers"); n != 1 {
				t.Errorf("%d lines in the log: %s", n, k.output)
			}
		})
	}
}

func TestAutoFails(t *testing.T) {
	for flags, want := range map[string]string{
		"--net=auto --port-driver=foo":                            "unknown port driver: foo",
		"--net=foo --port-driver=auto":                            "unknown network mode: foo",
		"--net=auto --port-driver=implicit --pasta-binary=nosuch": `no drivers work here: pasta with implicit: exec: "nosuch": executable file not found in $PATH`,
	} {
		cmd := exec.CommandContext(t.Context(), bin("rootlesskit"), append(strings.Fields(flags), "true")...)
		cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
		r := runCmd(t, cmd)
		if last := errorLine(r.stderr); r.code != 1 || last != "[rootlesskit:parent] error: "+want {
			t.Errorf("%s: code %d, %q", flags, r.code, last)
		}
	}
}
