// Command rootlesskit runs a command as "fake root": in user, mount and, on
// request, network namespaces that an ordinary user makes.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/urfave/cli/v3"

	"rootlesskit/internal/check"
	"rootlesskit/internal/driver/all"
	"rootlesskit/internal/helptext"
	"rootlesskit/internal/launch"
)

func main() {
	if check.IsProbe(os.Args) {
		os.Exit(check.ProbeMain(os.Args))
	}
	if launch.IsChild(os.Args) {
		os.Exit(childMain())
	}
	cli.HelpPrinter = helptext.Print
	inherited, err := launch.InheritedFDs()
	if err != nil {
		fail(parentTag, err)
		os.Exit(1)
	}
	os.Exit(parentMain(os.Args, inherited))
}

func childMain() int {
	code, err := launch.Child(os.Args, launch.ChildOptions{
		Handlers: all.Registry().Child(),
		NewLog:   func(debug bool) *slog.Logger { return newLog(childTag, debug) },
	})
	if err != nil && !errors.Is(err, launch.ErrReported) {
		fail(childTag, err)
	}
	return code
}

func parentMain(args []string, inherited []int) int {
	app := newApp(all.Registry(), inherited)
	code, err := app.run(context.Background(), args)
	if err != nil {
		fail(parentTag, err)
	}
	return code
}

func fail(tag string, err error) {
	fmt.Fprintf(os.Stderr, "[rootlesskit:%s] error: %v\n", tag, err)
	if text := hint(err); text != "" {
		fmt.Fprintf(os.Stderr, "[rootlesskit:%s] hint: %s\n", tag, text)
	}
}
