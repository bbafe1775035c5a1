package driver_test

import (
	"errors"
	"testing"

	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/all"
)

// TestChoose: which drivers auto takes, of those that work.
func TestChoose(t *testing.T) {
	for _, tt := range []struct {
		network, ports string
		isolate        bool
		broken         string // one that does not work
		want, err      string
	}{
		{network: "auto", ports: "auto", want: "gvisor-tap-vsock builtin"},
		{network: "auto", ports: "auto", broken: "gvisor-tap-vsock", want: "slirp4netns builtin"},
		{network: "auto", ports: "auto", broken: "gvisor-tap-vsock", isolate: true, want: "pasta pesto"},
		{network: "auto", ports: "implicit", want: "pasta implicit"},
		{network: "auto", ports: "slirp4netns", want: "slirp4netns slirp4netns"},
		{network: "pasta", ports: "auto", broken: "pesto", want: "pasta none"},
		{network: "lxc-user-nic", ports: "auto", want: "lxc-user-nic builtin"},
		{network: "none", ports: "auto", want: "none builtin"},
		{network: "host", ports: "auto", want: "host none"},
		{network: "pasta", ports: "pesto", broken: "pesto", want: "pasta pesto"}, // as asked for, whatever works
		{network: "nosuch", ports: "auto", want: "nosuch auto"},
		{network: "auto", ports: "nosuch", err: "unknown port driver: nosuch"},
		{network: "auto", ports: "pesto", broken: "pesto", err: "no drivers work here: pasta with pesto: broken"},
	} {
		got, err := driver.Choose(all.Registry(), driver.Want{Network: tt.network, Ports: tt.ports, Isolate: tt.isolate}, func(network, ports string) error {
			if network == tt.broken || ports == tt.broken {
				return errors.New("broken")
			}
			return nil
		})
		if tt.err != "" {
			if err == nil || err.Error() != tt.err {
				t.Errorf("%+v: %v", tt, err)
			}
			continue
		}
		if err != nil || got.Network+" "+got.Ports != tt.want {
			t.Errorf("%+v: %+v, %v", tt, got, err)
		}
		if asked := tt.network == "auto"; asked != (got.NetworkReason != "") {
			t.Errorf("%+v: the reason of the network is %q", tt, got.NetworkReason)
		}
	}
}

// TestCheckPair: the texts, and which comes first where several are true.
func TestCheckPair(t *testing.T) {
	reg := all.Registry()
	for _, tt := range []struct{ network, ports, want string }{
		{"none", "builtin", ""},
		{"slirp4netns", "builtin", ""},
		{"lxc-user-nic", "bypass4netns", ""},
		{"pasta", "implicit", ""},
		{"host", "none", ""},
		{"host", "pasta", `unknown port driver "pasta": did you mean "pesto"?`},
		{"host", "builtin", "port driver requires non-host network"},
		{"host", "nosuch", "unknown port driver: nosuch"},
		{"none", "nosuch", `network "none" requires either port driver "none" or "builtin"`},
		{"none", "bypass4netns", `network "none" requires either port driver "none" or "builtin"`},
		{"pasta", "nosuch", "unknown port driver: nosuch"},
		{"pasta", "builtin", `network "pasta" requires port driver "none" or "implicit" or "pesto"`},
		{"slirp4netns", "implicit", `port driver "implicit" requires --net=pasta`},
		{"gvisor-tap-vsock", "pesto", `port driver "pesto" requires --net=pasta`},
		{"gvisor-tap-vsock", "slirp4netns", "port driver requires slirp4netns network"},
		{"slirp4netns", "gvisor-tap-vsock", "port driver requires gvisor-tap-vsock network"},
	} {
		got := ""
		if err := reg.CheckPair(tt.network, tt.ports); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("--net=%s --port-driver=%s: %q, want %q", tt.network, tt.ports, got, tt.want)
		}
	}
}
