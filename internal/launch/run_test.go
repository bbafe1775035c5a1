package launch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/driver"
	"rootlesskit/internal/ports/portstest"
	"rootlesskit/internal/userns"
)

// testNetwork is a network without a backend whose Attach does what the test
// wants.
type testNetwork struct {
	attach func(driver.Sandbox) error
	died   chan error
}

func (n *testNetwork) Attach(_ context.Context, sb driver.Sandbox) (driver.Link, error) {
	if n.attach == nil {
		return driver.Link{}, nil
	}
	return driver.Link{}, n.attach(sb)
}

func (n *testNetwork) Wait() error { return <-n.died }

// testRun is Run of a configuration that works, unless the test spoils it.
func testRun(t *testing.T, spoil func(*Config)) (int, error) {
	t.Helper()
	died := make(chan error, 1)
	died <- nil
	cfg := Config{
		Command:     []string{"true"},
		StateDir:    filepath.Join(t.TempDir(), "state"),
		NetworkName: "none",
		Network:     &testNetwork{died: died},
		Propagation: "rprivate",
		SubIDSource: userns.SourceAuto,
		Log:         slog.New(slog.DiscardHandler),
	}
	spoil(&cfg)
	t.Cleanup(func() { signal.Reset() }) // which Run leaves to the end of the process
	type result struct {
		code int
		err  error
	}
	ended := make(chan result)
	go func() {
		code, err := Run(context.Background(), cfg)
		ended <- result{code, err}
	}()
	select {
	case r := <-ended:
		if _, err := os.Stat(cfg.StateDir); !os.IsNotExist(err) {
			t.Errorf("the state directory is left: %v", err)
		}
		return r.code, r.err
	case <-time.After(3 * time.Minute):
		t.Fatal("the run hangs")
	}
	return 0, nil
}

func TestRun(t *testing.T) {
	for _, tt := range []struct {
		command []string
		code    int
	}{{[]string{"true"}, 0}, {[]string{"sh", "-c", "exit 3"}, 3}, {[]string{"sh", "-c", "kill -9 $$"}, 255}, {[]string{"nosuchcommand"}, 1}} {
		code, err := testRun(t, func(cfg *Config) { cfg.Command = tt.command })
		if code != tt.code || (err != nil) != (code != 0) {
			t.Errorf("%v: code %d, %v", tt.command, code, err)
		}
	}
}

// TestPortsAreClosed: at the end of a run no port is left open, however the driver
// would close them itself.
func TestPortsAreClosed(t *testing.T) {
	opened := 0
	ports := &portstest.Driver{OnForward: func(context.Context, api.PortSpec) error { opened++; return nil }}
	code, err := testRun(t, func(cfg *Config) {
		cfg.Command = []string{"true"}
		cfg.Ports = ports
		cfg.Publish = []api.PortSpec{{Proto: "tcp", ParentPort: 8080, ChildPort: 80}, {Proto: "udp", ParentPort: 8080, ChildPort: 80}}
	})
	if code != 0 || err != nil || opened != 2 {
		t.Errorf("code %d, %v, %d ports were opened", code, err, opened)
	}
	if n := ports.OpenPorts(); n != 0 {
		t.Errorf("%d ports are left open", n)
	}
}

// TestChildFails: whatever a child does in place of its part of the handshake,
// the run ends, with the reason.
func TestChildFails(t *testing.T) {
	for failure, want := range map[string]string{
		"at once":             "",
		"after setup":         "the child ended before it was set up",
		"garbage for ready":   "malformed message",
		"kind for ready":      `unexpected message "exec"`,
		"failed":              "setting up the child: the reason",
		"after ready":         "child exited: exit status 7",
		"garbage for a reply": "",
		"foreign reply":       "",
	} {
		t.Run(failure, func(t *testing.T) {
			t.Setenv(childEnv, failure)
			code, err := testRun(t, func(*Config) {})
			if code == 0 || err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("code %d: %v", code, err)
			}
		})
	}
}

// TestChildDies: at each step of the parent's.
func TestChildDies(t *testing.T) {
	kill := func(sb driver.Sandbox) error { return unix.Kill(sb.PID, unix.SIGKILL) }
	for name, spoil := range map[string]func(*Config){
		"attach": func(cfg *Config) { cfg.Network.(*testNetwork).attach = kill },
		"publish": func(cfg *Config) {
			var child driver.Sandbox
			cfg.Network.(*testNetwork).attach = func(sb driver.Sandbox) error { child = sb; return nil }
			cfg.Ports = &portstest.Driver{OnForward: func(context.Context, api.PortSpec) error { return kill(child) }}
			cfg.Publish = []api.PortSpec{{Proto: "tcp", ParentPort: 8080, ChildPort: 80}}
		},
		"the command": func(cfg *Config) { cfg.Command = []string{"sh", "-c", "kill -9 $PPID; sleep 60"} },
	} {
		t.Run(name, func(t *testing.T) {
			code, err := testRun(t, spoil)
			if code == 0 || err == nil {
				t.Errorf("code %d: %v", code, err)
			}
		})
	}
}

// TestDriverFails: at each of its steps, and later.
func TestDriverFails(t *testing.T) {
	failure := errors.New("the failure")
	for name, spoil := range map[string]func(*Config){
		"attach": func(cfg *Config) {
			cfg.Network.(*testNetwork).attach = func(driver.Sandbox) error { return failure }
		},
		"publish": func(cfg *Config) {
			cfg.Ports = &portstest.Driver{OnForward: func(context.Context, api.PortSpec) error { return failure }}
			cfg.Publish = []api.PortSpec{{Proto: "tcp", ParentPort: 8080, ChildPort: 80}}
		},
		"wait": func(cfg *Config) {
			died := make(chan error, 1)
			died <- failure
			cfg.Network = &testNetwork{died: died}
			cfg.Command = []string{"sleep", "60"}
		},
	} {
		if code, err := testRun(t, spoil); code != 1 || !errors.Is(err, failure) {
			t.Errorf("%s: code %d: %v", name, code, err)
		}
	}
}

// TestSetUpFails: what the child cannot do is told by the parent.
func TestSetUpFails(t *testing.T) {
	for want, spoil := range map[string]func(*Config){
		"copy-up of /nosuch": func(cfg *Config) { cfg.CopyUp = []string{"/nosuch"} },
		"evacuating":         func(cfg *Config) { cfg.EvacuateCgroup2 = strings.Repeat("x", 300) },
	} {
		if code, err := testRun(t, spoil); code != 1 || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("code %d: %v, want %s", code, err, want)
		}
	}
}

// TestChildIsAsked: what is not of the parent is refused, by an error.
func TestChildIsAsked(t *testing.T) {
	var answers []string
	code, err := testRun(t, func(cfg *Config) {
		cfg.Network.(*testNetwork).attach = func(sb driver.Sandbox) error {
			for _, method := range []string{"nosuch", string(etcMethod), string(signalMethod), string(execMethod)} {
				_, err := sb.Child.Call(context.Background(), method, "no object", nil)
				answers = append(answers, fmt.Sprint(err))
			}
			return nil
		}
	})
	if code != 0 || err != nil || len(answers) != 4 {
		t.Fatalf("code %d: %v, answers %q", code, err, answers)
	}
	for i, a := range answers {
		if want := map[bool]string{true: "unknown method", false: "malformed body"}[i == 0]; !strings.Contains(a, want) {
			t.Errorf("answer %q, want %q", a, want)
		}
	}
}
