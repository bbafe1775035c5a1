package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v3"

	"rootlesskit/api"
)

const stateDirEnv = "ROOTLESSKIT_STATE_DIR"

// newApp returns the command line. Its Run neither exits nor prints errors:
// see report.
func newApp(stdout, stderr io.Writer) *cli.Command {
	app := &cli.Command{
		Name:      "rootlessctl",
		Usage:     "RootlessKit API client",
		Version:   api.Version,
		Writer:    stdout,
		ErrWriter: stderr,
		Description: "Talks to a running rootlesskit over the api.sock in its state directory:\n" +
			"lists, publishes and unpublishes ports, and shows what it is running.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "debug", Usage: "debug mode"},
			&cli.StringFlag{
				Name:  "socket",
				Usage: "`PATH` to api.sock (under the \"rootlesskit --state-dir\" directory), defaults to $" + stateDirEnv + "/api.sock",
			},
		},
		Commands:       []*cli.Command{listPortsCommand(), addPortsCommand(), removePortsCommand(), infoCommand()},
		ExitErrHandler: func(context.Context, *cli.Command, error) {},
	}
	app.OnUsageError = usageError
	for _, c := range app.Commands {
		c.OnUsageError = usageError
	}
	return app
}

// usageError keeps the help text off stdout, where scripts read results.
func usageError(_ context.Context, _ *cli.Command, err error, _ bool) error { return err }

// report prints an error, and returns the exit status: 3 for an unknown
// command, 1 for everything else.
func report(stderr io.Writer, err error) int {
	var exit cli.ExitCoder
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		fmt.Fprintln(stderr, err)
		return exit.ExitCode()
	default:
		fmt.Fprintln(stderr, "error:", err)
		return 1
	}
}

// newClient returns a client of the launcher that the flags or the
// environment name.
func newClient(cmd *cli.Command) (*api.Client, error) {
	socket := cmd.String("socket")
	if socket == "" {
		dir := os.Getenv(stateDirEnv)
		if dir == "" {
			return nil, errors.New("please specify --socket or set $" + stateDirEnv)
		}
		socket = filepath.Join(dir, "api.sock")
	}
	if _, err := os.Stat(socket); err != nil {
		return nil, err
	}
	if cmd.Bool("debug") {
		log := slog.New(slog.NewTextHandler(cmd.Root().ErrWriter, &slog.HandlerOptions{Level: slog.LevelDebug}))
		log.Debug("connecting", "socket", socket)
	}
	return api.NewClient(socket), nil
}

func jsonFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", Usage: "Prints as JSON"}
}

// printJSON prints one compact line.
func printJSON(w io.Writer, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", line)
	return err
}
