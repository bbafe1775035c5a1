package main

import (
	"flag"
	"io"
	"testing"

	"github.com/urfave/cli/v3"

	"rootlesskit/internal/completion"
	"rootlesskit/internal/manpage"
)

var update = flag.Bool("update", false, "rewrite the man page and the completions")

var manSections = []manpage.Section{
	{Title: "EXIT STATUS", Terms: []manpage.Term{
		{Term: "0", Text: "Success."},
		{Term: "1", Text: "Failure. The reason is on standard error. Everything printed before it has been done."},
		{Term: "3", Text: "There is no such command."},
	}},
	{Title: "ENVIRONMENT", Terms: []manpage.Term{
		{Term: stateDirEnv, Text: "The state directory that contains api.sock, if --socket is not given. rootlesskit(1) sets it for its command."},
	}},
	{Title: "FILES", Terms: []manpage.Term{
		{Term: "STATE_DIR/api.sock", Text: "The Unix socket of the REST API. Only root and the user who runs rootlesskit(1) may use it."},
	}},
	{Title: "EXAMPLES", Text: `Publish port 80 of the namespace as port 8080 of the host's loopback, from inside:

  rootlessctl add-ports 127.0.0.1:8080:80/tcp

The same from outside:

  rootlessctl --socket /run/user/1000/myrun/api.sock add-ports 127.0.0.1:8080:80/tcp

Remove every port:

  rootlessctl list-ports --json | jq .id | xargs --no-run-if-empty rootlessctl remove-ports

Read the description of the REST API:

  curl --unix-socket $ROOTLESSKIT_STATE_DIR/api.sock http://rootlesskit/v1/openapi.yaml`},
	{Title: "SEE ALSO", Text: "rootlesskit(1), nsenter(1), user_namespaces(7)"},
}

func TestCompletionsAreCurrent(t *testing.T) {
	completion.Check(t, "../../contrib/completions", func() *cli.Command { return newApp(io.Discard, io.Discard) }, *update)
}

func TestManPageIsCurrent(t *testing.T) {
	page := manpage.Render(newApp(io.Discard, io.Discard), manSections...)
	manpage.Check(t, "../../docs/man/rootlessctl.1", page, *update)
}
