package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v3"

	"rootlesskit/internal/check"
	"rootlesskit/internal/completion"
	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/all"
	"rootlesskit/internal/launch"
	"rootlesskit/internal/manpage"
)

// carrierDriver exists in these tests alone: a network with a helper program, which
// publishes ports itself, and is the best of all.
func carrierDriver() driver.Driver {
	return driver.Driver{
		Name: "carrier",
		Flags: []driver.Flag{
			{Name: "carrier-binary", Kind: driver.File, Default: "carrier-pigeon", Usage: "path of the pigeon"},
			{Name: "carrier-food", Default: "corn", Values: []string{"corn", "wheat"}, Usage: "what it eats"},
			{Name: "carrier-fast", Kind: driver.Bool, Usage: "fly"},
		},
		Network: &driver.NetworkRole{
			MTU: 160, Ifname: "wing0", CIDR: true, PortDrivers: []string{"basket"},
			Auto:   driver.Auto{Rank: 1, Why: "it flies"},
			Helper: &driver.Helper{Flag: "carrier-binary", Package: "pigeons", Limits: "rain is"},
			New:    newCarrier,
		},
		Ports: []driver.PortRole{{Name: "basket", Auto: driver.Auto{Rank: 1, Why: "woven"}}},
	}
}

type carrier struct {
	driver.Network
	cfg driver.NetworkConfig
}

type basket struct{ driver.Ports }

func (c *carrier) Ports() driver.Ports { return &basket{} }

func newCarrier(cfg driver.NetworkConfig, flags driver.Flags) (driver.Network, error) {
	if _, err := os.Stat(flags.String("carrier-binary")); err != nil {
		return nil, errors.New("no pigeon")
	}
	if food := flags.String("carrier-food"); food == "wheat" && !flags.Bool("carrier-fast") {
		return nil, errors.New("wheat is for fast ones")
	}
	return &carrier{cfg: cfg}, nil
}

// carrierApp is the program with one driver more. Those that have a rank of their own
// are behind it: auto looks at the order of registration then.
func carrierApp(t *testing.T) (*app, *bytes.Buffer) {
	t.Helper()
	reg := driver.NewRegistry()
	reg.Register(carrierDriver())
	for d := range all.Registry().Drivers {
		reg.Register(*d)
	}
	out := &bytes.Buffer{}
	app := newApp(reg, nil)
	app.stdout = out
	app.newLog = func(bool) *slog.Logger { return slog.New(slog.DiscardHandler) }
	return app, out
}

// TestDriverOfATest: a driver that registers itself is in all that is made from the
// registry. Nothing else in the program knows of it.
func TestDriverOfATest(t *testing.T) {
	app, help := carrierApp(t)
	if _, err := app.run(t.Context(), []string{"rootlesskit", "--help"}); err != nil {
		t.Fatal(err)
	}
	page := strings.ReplaceAll(string(manpage.Render(app.cli())), `\-`, "-")
	for what, text := range map[string]string{"help": help.String(), "the man page": page} {
		for _, want := range []string{"auto, carrier, ", "auto, basket, ", "--carrier-binary", "what it eats [corn, wheat]", "--carrier-fast", "wing0 for carrier", "160 for carrier", "Network [carrier]"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s has no %q", what, want)
			}
		}
	}
	fish := string(completion.Fish(app.cli()))
	for _, want := range []string{"-l carrier-binary -r -F", "-l carrier-food -x -a 'corn wheat'", "-l carrier-fast -d", "auto carrier ", "auto basket "} {
		if !strings.Contains(fish, want) {
			t.Errorf("the completion has no %q: %s", want, fish)
		}
	}
}

// TestDriverOfATestRuns: the driver is chosen, by its name and by auto, gets its flags,
// and is judged by --check.
func TestDriverOfATestRuns(t *testing.T) {
	pigeon := filepath.Join(t.TempDir(), "pigeon")
	if err := os.WriteFile(pigeon, []byte("#!/bin/sh\necho pigeon 7\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ flags, want string }{
		{"--net=carrier --port-driver=basket", ""},
		{"--net=auto --port-driver=auto", ""},
		{"--net=auto --port-driver=basket", ""},
		{"--net=carrier --port-driver=auto", ""},
		{"--net=carrier --port-driver=basket --carrier-food=wheat", "wheat is for fast ones"},
		{"--net=carrier --port-driver=basket --carrier-binary=/nowhere", "no pigeon"},
		{"--net=none --port-driver=basket", `network "none" requires either port driver "none" or "builtin"`},
		{"--net=host --port-driver=basket", "port driver requires non-host network"},
		{"--net=carrier --port-driver=builtin", `network "carrier" requires either port driver "none" or "basket"`},
		{"--net=carier", "unknown network mode: carier"},
	} {
		args := append([]string{"--carrier-binary=" + pigeon}, strings.Fields(tt.flags)...)
		cfg, err := configOf(t, append(args, "true"))
		if got := text(err); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.flags, got, tt.want)
			continue
		}
		if err != nil {
			continue
		}
		c, _ := cfg.Network.(*carrier)
		if _, ok := cfg.Ports.(*basket); !ok || c == nil {
			t.Errorf("%s: %T and %T", tt.flags, cfg.Network, cfg.Ports)
		} else if c.cfg.MTU != 160 || c.cfg.Ifname != "wing0" || c.cfg.Ports != "basket" {
			t.Errorf("%s: %+v", tt.flags, c.cfg)
		}
	}
	checkReports(t, "ok       carrier: pigeon 7; rain is", "--net=carrier", "--carrier-binary="+pigeon)
	checkReports(t, "error    carrier: no pigeon", "--net=carrier", "--carrier-binary=/nowhere")
	checkReports(t, "warning  carrier: no pigeon", "--carrier-binary=/nowhere")
}

// configOf is what a run with these arguments would be told.
func configOf(t *testing.T, args []string) (cfg launch.Config, err error) {
	t.Helper()
	app, _ := carrierApp(t)
	cmd := app.cli()
	own, command := splitCommand(cmd.Flags, args)
	app.command = command
	cmd.Action = func(_ context.Context, c *cli.Command) (err error) {
		cfg, err = app.config(c)
		return err
	}
	err = cmd.Run(t.Context(), append([]string{"rootlesskit"}, own...))
	return cfg, err
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func checkReports(t *testing.T, line string, args ...string) {
	t.Helper()
	app, out := carrierApp(t)
	cmd := app.cli()
	cmd.Action = func(ctx context.Context, c *cli.Command) error {
		check.NewReport(app.checkHelpers(ctx, c)).Print(out)
		return nil
	}
	if err := cmd.Run(t.Context(), append([]string{"rootlesskit"}, args...)); err != nil {
		t.Error(err)
	}
	if !strings.Contains(out.String(), line+"\n") {
		t.Errorf("the checks of helpers with %v have no line %q: %s", args, line, out)
	}
}
