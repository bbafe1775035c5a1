package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/urfave/cli/v3"

	"rootlesskit/api"
)

const stateDirEnv = "ROOTLESSKIT_STATE_DIR"

// newApp returns the command line. Its Run neither exits nor prints errors;
// report does.
func newApp(stdout, stderr io.Writer) *cli.Command {
	app := &cli.Command{
		Name:      "rootlessctl",
		Usage:     "RootlessKit API client",
		Version:   api.Build(),
		Writer:    stdout,
		ErrWriter: stderr,
		Description: "Controls a running rootlesskit through the api.sock in its state directory:\n" +
			"lists, publishes and unpublishes ports, and shows versions and drivers.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "debug", Usage: "debug mode"},
			&cli.StringFlag{
				Name: "socket", TakesFile: true,
				Usage: "`PATH` to api.sock (under the \"rootlesskit --state-dir\" directory), defaults to $" + stateDirEnv + "/api.sock",
			},
		},
		Commands:       commands(),
		ExitErrHandler: func(context.Context, *cli.Command, error) {},
	}
	app.OnUsageError = usageError
	for _, c := range app.Commands {
		c.OnUsageError = usageError
	}
	return app
}

// usageError keeps the help text off stdout, where scripts read results. It
// suggests the flag that is most similar to a mistyped one.
func usageError(_ context.Context, cmd *cli.Command, err error, _ bool) error {
	_, name, found := strings.Cut(err.Error(), "flag provided but not defined: -")
	if !found {
		return err
	}
	return fmt.Errorf("%w (did you mean %s? see %s --help)", err, cli.SuggestFlag(cmd.Flags, name, false), cmd.FullName())
}

// noArguments refuses arguments, which the command would ignore.
func noArguments(cmd *cli.Command) error {
	if !cmd.Args().Present() {
		return nil
	}
	return fmt.Errorf("%s takes no arguments, got %q", cmd.Name, cmd.Args().Slice())
}

// report prints an error, and returns the exit status: 3 for an unknown
// command, 1 for everything else.
func report(stderr io.Writer, err error) int {
	var exit cli.ExitCoder
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		fmt.Fprintln(stderr, err)
		fmt.Fprintln(stderr, commandHint(err.Error()))
		return exit.ExitCode()
	default:
		fmt.Fprintln(stderr, "error:", err)
		return 1
	}
}

func commands() []*cli.Command {
	return []*cli.Command{listPortsCommand(), addPortsCommand(), removePortsCommand(), infoCommand()}
}

// commandHint suggests the command that is most similar to the one in quotes,
// and lists all commands.
func commandHint(message string) string {
	_, name, _ := strings.Cut(message, "'")
	var names []string
	for _, c := range commands() {
		names = append(names, c.Name)
	}
	return fmt.Sprintf("Did you mean %s? The commands are %s.", cli.SuggestCommand(commands(), strings.TrimSuffix(name, "'")), strings.Join(names, ", "))
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
	// If no process listens, say so here: the message of an HTTP client is harder to read.
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, notRunning(socket, err)
	}
	conn.Close()
	if cmd.Bool("debug") {
		log := slog.New(slog.NewTextHandler(cmd.Root().ErrWriter, &slog.HandlerOptions{Level: slog.LevelDebug}))
		log.Debug("connecting", "socket", socket)
	}
	return api.NewClient(socket), nil
}

// notRunning explains a socket that cannot be connected to.
func notRunning(socket string, err error) error {
	var call *os.SyscallError
	if !errors.As(err, &call) {
		return err
	}
	switch {
	case errors.Is(call.Err, syscall.ENOENT):
		return fmt.Errorf("rootlesskit is not running (socket %s does not exist)", socket)
	case errors.Is(call.Err, syscall.ECONNREFUSED):
		return fmt.Errorf("rootlesskit is not running (no process listens on socket %s)", socket)
	}
	return fmt.Errorf("connecting to rootlesskit (socket %s): %w", socket, call.Err)
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
