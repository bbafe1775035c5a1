package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/urfave/cli/v3"

	"rootlesskit/api"
	"rootlesskit/internal/driver"
	"rootlesskit/internal/launch"
)

// app is the command line: flags in, a run out.
type app struct {
	registry  *driver.Registry
	inherited []int
	command   []string
	code      int
	stdout    io.Writer
	newLog    func(debug bool) *slog.Logger
}

func newApp(reg *driver.Registry, inherited []int) *app {
	return &app{
		registry:  reg,
		inherited: inherited,
		stdout:    os.Stdout,
		newLog:    func(debug bool) *slog.Logger { return newLog(parentTag, debug) },
	}
}

// run parses the arguments, the program's name first, and runs the command.
func (a *app) run(ctx context.Context, args []string) (int, error) {
	c := a.cli()
	own, command := splitCommand(c.Flags, args[1:])
	a.command = command
	if err := c.Run(ctx, append([]string{args[0]}, own...)); err != nil {
		return max(a.code, 1), err
	}
	return a.code, nil
}

// cli describes the program; man pages are made from it as well.
func (a *app) cli() *cli.Command {
	return &cli.Command{
		Name:            "rootlesskit",
		Usage:           "run a command as fake root in new namespaces, as an ordinary user",
		UsageText:       "rootlesskit [options] COMMAND [ARGUMENT...]",
		Version:         api.Build(),
		Description:     description(a.registry),
		HideHelpCommand: true,
		Flags:           flags(a.registry),
		Writer:          a.stdout,
		Action:          a.action,
		OnUsageError: func(_ context.Context, c *cli.Command, err error, _ bool) error {
			return flagHint(err, c.Flags)
		},
		ExitErrHandler: func(context.Context, *cli.Command, error) {},
	}
}

func (a *app) action(ctx context.Context, c *cli.Command) error {
	if part := c.String("print-semver"); c.IsSet("print-semver") {
		return a.printSemver(part)
	}
	if c.Bool("check") {
		return a.check(ctx, c)
	}
	if c.Bool("json") {
		return errors.New("json requires --check")
	}
	if len(a.command) == 0 {
		return errors.New("no command specified")
	}
	cfg, err := a.config(c)
	if err != nil {
		return err
	}
	a.code, err = launch.Run(ctx, cfg)
	return err
}

func (a *app) printSemver(part string) error {
	number, _, _ := strings.Cut(api.Version, "-")
	fields := strings.Split(number, ".")
	for i, name := range []string{"major", "minor", "patch"} {
		if part == name {
			fmt.Fprintln(a.stdout, fields[i])
			return nil
		}
	}
	return fmt.Errorf("expected --print-semver=(major|minor|patch), got %q", part)
}
