package manpage_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/urfave/cli/v3"

	"rootlesskit/internal/manpage"
)

const want = `.TH "KIT\-CTL" "1" "" "RootlessKit 1.2.3" "User Commands"
.SH "NAME"
kit\-ctl \- does things
.SH "SYNOPSIS"
\fBkit\-ctl\fR [options] command [command options]
.SH "DESCRIPTION"
Does \fB\-\-net\-work\fR things, see \fBuser_namespaces\fR(7).
\&.Examples:
.PP
.RS 4
.nf
# first
kit\-ctl \-\-x=C:\edir

  # second
\&.dot
.fi
.RE
.PP
The end.
.SH "OPTIONS"
.TP
\fB\-\-name\fR, \fB\-n\fR \fINAME\fR
the NAME of it (default: it)
.TP
\fB\-\-help\fR, \fB\-h\fR
show help
.TP
\fB\-\-version\fR, \fB\-v\fR
print the version
.SS "A \(dqcategory\(dq"
.TP
\fB\-\-list\fR \fIVALUE\fR
some (can be repeated)
.TP
\fB\-\-on\fR
switch it on (default: on; \fB\-\-on\fR=false turns it off)
.TP
\fB\-\-off\fR
switch it off
.TP
\fB\-\-mode\fR \fIVALUE\fR
how (default: false)
.SH "COMMANDS"
.SS "sub\-one"
\fBkit\-ctl sub\-one\fR [options] ID [ID...]
.PP
One paragraph.
.PP
Another.
.TP
\fB\-\-json\fR
as JSON
.SS "two"
\fBkit\-ctl two\fR FILE
.PP
no description
.SH "EXIT STATUS"
As follows.
.TP
\fB0\fR
Success.
.TP
\fB1\fR
Failure.
.IP
More of it.
`

func command() *cli.Command {
	const category = `A "category"`
	return &cli.Command{
		Name: "kit-ctl", Usage: "does things", Version: "1.2.3",
		Description: "Does --net-work things, see user_namespaces(7).\n.Examples:\n  # first\n  kit-ctl --x=C:\\dir\n\n    # second\n  .dot\n\nThe end.",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "list", Category: category, Usage: "some"},
			&cli.StringFlag{Name: "name", Aliases: []string{"n"}, Value: "it", Usage: "the `NAME` of it"},
			&cli.BoolFlag{Name: "on", Category: category, Value: true, Usage: "switch it on"},
			&cli.BoolFlag{Name: "off", Category: category, Usage: "switch it off"},
			&cli.StringFlag{Name: "mode", Category: category, Value: "false", Usage: "how"},
			&cli.BoolFlag{Name: "secret", Hidden: true},
		},
		Commands: []*cli.Command{
			{Name: "sub-one", ArgsUsage: "ID [ID...]", Description: "One paragraph.\n\nAnother.", Flags: []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "as JSON"}}},
			{Name: "two", Usage: "no description", UsageText: "kit-ctl two FILE"},
			{Name: "secret", Hidden: true},
		},
	}
}

func TestRender(t *testing.T) {
	got := manpage.Render(command(), manpage.Section{
		Title: "EXIT STATUS", Text: "As follows.",
		Terms: []manpage.Term{{Term: "0", Text: "Success."}, {Term: "1", Text: "Failure.\n\nMore of it."}},
	})
	if string(got) != want {
		t.Errorf("got:\n%s", got)
	}
}

func TestCheckUpdates(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kit-ctl.1")
	page := manpage.Render(command())
	manpage.Check(t, file, page, true)
	manpage.Check(t, file, page, false)
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}
