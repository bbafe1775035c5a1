// Command rootlessctl is a client of the REST API of a running launcher.
package main

import (
	"context"
	"os"

	"github.com/urfave/cli/v3"

	"rootlesskit/internal/helptext"
)

func main() {
	cli.HelpPrinter = helptext.Print
	err := newApp(os.Stdout, os.Stderr).Run(context.Background(), os.Args)
	os.Exit(report(os.Stderr, err))
}
