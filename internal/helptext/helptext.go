// Package helptext prints the help of a command line, in lines of 80 columns.
package helptext

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"rootlesskit/internal/flagdoc"
)

const (
	width = 80
	// column is where the text that explains an option or a command begins.
	column = 26
)

// Print is a cli.HelpPrinter. It ignores the template.
func Print(w io.Writer, _ string, data any) {
	if cmd, ok := data.(*cli.Command); ok {
		_, _ = io.WriteString(w, Render(cmd))
	}
}

// Render returns the help of a command: name, usage, description, commands, and options
// by topic.
func Render(cmd *cli.Command) string {
	p := &printer{}
	p.paragraph(cmd.FullName()+" - "+cmd.Usage, 0)
	p.blank()
	p.paragraph("Usage: "+usage(cmd), 0)
	if cmd.Description != "" {
		p.blank()
		p.text(cmd.Description)
	}
	p.commands(cmd.VisibleCommands())
	p.options("Options", flagdoc.WithBuiltin(cmd))
	if root := cmd.Root(); root != cmd {
		p.options("Options of every command", slices.DeleteFunc(slices.Clone(root.Flags), builtin))
	}
	return p.String()
}

// builtin reports whether the library has added the flag, as it does to every command.
func builtin(f cli.Flag) bool {
	return slices.Contains(f.Names(), "help") || slices.Contains(f.Names(), "version")
}

func usage(cmd *cli.Command) string {
	switch {
	case cmd.UsageText != "":
		return cmd.UsageText
	case len(cmd.VisibleCommands()) > 0:
		return cmd.FullName() + " [options] COMMAND [ARGUMENT...]"
	}
	return strings.TrimSpace(cmd.FullName() + " [options] " + cmd.ArgsUsage)
}

type printer struct{ strings.Builder }

func (p *printer) blank() { p.WriteByte('\n') }

// text prints paragraphs, which are separated by blank lines. Lines that begin with a
// blank are printed unchanged, as in man pages.
func (p *printer) text(s string) {
	prose := ""
	flush := func() {
		if prose != "" {
			p.paragraph(prose, 0)
		}
		prose = ""
	}
	for line := range strings.SplitSeq(strings.TrimSpace(s), "\n") {
		if line != "" && line[0] != ' ' {
			prose += line + " "
			continue
		}
		flush()
		fmt.Fprintln(p, line)
	}
	flush()
}

func (p *printer) commands(commands []*cli.Command) {
	if len(commands) == 0 {
		return
	}
	p.heading("Commands")
	for _, c := range commands {
		p.entry(strings.Join(c.Names(), ", "), c.Usage)
	}
}

// options prints flags by topic; title is the title for flags without a topic.
func (p *printer) options(title string, flags []cli.Flag) {
	for _, g := range flagdoc.Groups(flags) {
		p.heading(cmp.Or(g.Name, title))
		for _, f := range g.Flags {
			names := strings.Join(f.Names, ", ")
			if f.Value != "" {
				names += " " + f.Value
			}
			p.entry(names, f.Usage)
		}
	}
}

func (p *printer) heading(s string) { fmt.Fprintf(p, "\n%s:\n", s) }

// entry prints a name and its meaning, next to it if there is room.
func (p *printer) entry(name, meaning string) {
	name = "  " + name
	if len(name) > column-2 || meaning == "" {
		fmt.Fprintln(p, name)
		name = ""
	}
	for _, line := range wrap(meaning, width-column) {
		fmt.Fprintf(p, "%-*s%s\n", column, name, line)
		name = ""
	}
}

func (p *printer) paragraph(s string, indent int) {
	for _, line := range wrap(s, width-indent) {
		fmt.Fprintf(p, "%*s%s\n", indent, "", line)
	}
}

// wrap breaks a text into lines that are no longer than width, if its words allow it.
func wrap(s string, width int) (lines []string) {
	line := ""
	for word := range strings.FieldsSeq(s) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}
