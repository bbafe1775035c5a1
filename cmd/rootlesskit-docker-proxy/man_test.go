package main

import (
	"flag"
	"testing"

	"github.com/urfave/cli/v3"

	"rootlesskit/api"
	"rootlesskit/internal/completion"
	"rootlesskit/internal/manpage"
)

var update = flag.Bool("update", false, "rewrite the man page and the completions")

var manSections = []manpage.Section{
	{Title: "EXIT STATUS", Terms: []manpage.Term{
		{Term: "0", Text: "The port was served until SIGINT or SIGTERM, and is no longer published."},
		{Term: "1", Text: "Failure. The reason is on standard error and on descriptor 3."},
	}},
	{Title: "DESCRIPTORS", Terms: []manpage.Term{
		{Term: "3", Text: "dockerd reads the result from this descriptor, up to end of file: \"0\", which docker-proxy writes, or \"1\" and, on the next line, an error."},
	}},
	{Title: "ENVIRONMENT", Terms: []manpage.Term{
		{Term: "ROOTLESSKIT_STATE_DIR", Text: "The state directory of the rootlesskit(1) in which dockerd runs. rootlesskit sets this variable."},
		{Term: "PATH", Text: "The directories to search for docker-proxy."},
	}},
	{Title: "EXAMPLES", Text: `A rootless dockerd up to version 27 finds the program on its PATH. To name it explicitly, use daemon.json:

  { "userland-proxy": true, "userland-proxy-path": "/usr/local/bin/rootlesskit-docker-proxy" }`},
	{Title: "SEE ALSO", Text: "rootlesskit(1), rootlessctl(1), dockerd(8)"},
}

// commandLine describes the program as those that parse their arguments by cli do.
func commandLine() *cli.Command {
	c := &cli.Command{
		Name: "rootlesskit-docker-proxy", Version: api.Version, HideVersion: true, HideHelpCommand: true,
		Usage: "publish a port of a rootless Docker container",
		Description: "Replaces docker-proxy(1) in a rootless dockerd up to version 27, which does not use the API of rootlesskit(1) itself. " +
			"It publishes the port of the host, which leads to the same port inside, and starts docker-proxy, which forwards from there to the container, until a signal ends both.",
		UsageText: "rootlesskit-docker-proxy --host-ip ADDRESS --host-port PORT --container-ip ADDRESS --container-port PORT",
	}
	new(options).flags().VisitAll(func(f *flag.Flag) {
		if b, ok := f.Value.(interface{ IsBoolFlag() bool }); ok && b.IsBoolFlag() {
			c.Flags = append(c.Flags, &cli.BoolFlag{Name: f.Name, Usage: f.Usage})
			return
		}
		value := f.DefValue
		if value == "-1" { // none: the flag has to be given
			value = ""
		}
		c.Flags = append(c.Flags, &cli.StringFlag{Name: f.Name, Value: value, Usage: f.Usage})
	})
	return c
}

func TestCompletionsAreCurrent(t *testing.T) {
	completion.Check(t, "../../contrib/completions", commandLine, *update)
}

func TestManPageIsCurrent(t *testing.T) {
	manpage.Check(t, "../../docs/man/rootlesskit-docker-proxy.1", manpage.Render(commandLine(), manSections...), *update)
}
