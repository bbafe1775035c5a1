package helptext

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v3"
)

func command() *cli.Command {
	return &cli.Command{
		Name: "kit", Usage: "does things", Writer: io.Discard, Version: "1.2",
		Description: "Some prose that is in two\nlines, and an example:\n  kit --long=" + strings.Repeat("x", 80) + "\n\nMore.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "net", Aliases: []string{"n"}, Category: "Network", Value: "host", Usage: "`DRIVER` of the network"},
			&cli.BoolFlag{Name: "on", Value: true, Usage: strings.Repeat("word ", 20)},
			&cli.BoolFlag{Name: "secret", Hidden: true},
			&cli.StringFlag{Name: "a-name-that-has-no-room-beside-it", TakesFile: true},
		},
		Commands: []*cli.Command{{Name: "list", Usage: "list things", ArgsUsage: "[THING...]", Flags: []cli.Flag{&cli.BoolFlag{Name: "json"}}}},
	}
}

func TestRender(t *testing.T) {
	want := `kit - does things

Usage: kit [options] COMMAND [ARGUMENT...]

Some prose that is in two lines, and an example:
  kit --long=` + strings.Repeat("x", 80) + `

More.

Commands:
  list                    list things

Options:
  --on                    word word word word word word word word word word word
                          word word word word word word word word word (default:
                          on; --on=false turns it off)
  --a-name-that-has-no-room-beside-it FILE
  --help, -h              show help
  --version, -v           print the version

Network:
  --net, -n DRIVER        DRIVER of the network (default: host)
`
	if diff := cmp.Diff(want, Render(command())); diff != "" {
		t.Error(diff)
	}
}

// TestPrint: the library prints with it, the help of a command of a command too.
func TestPrint(t *testing.T) {
	was := cli.HelpPrinter
	defer func() { cli.HelpPrinter = was }()
	cli.HelpPrinter = Print
	var out strings.Builder
	c := command()
	c.Writer = &out
	if err := c.Run(context.Background(), []string{"kit", "list", "--help"}); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"kit list - list things\n", "Usage: kit list [options] [THING...]\n", "\nOptions of every command:\n  --on "} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("%q is missing in:\n%s", part, &out)
		}
	}
	if strings.Count(out.String(), "--help") != 1 {
		t.Errorf("--help is not there once:\n%s", &out)
	}
}
