// Package manpage renders a command line as a man page of section 1, in the
// man(7) macros. It takes everything beyond the command line as extra sections,
// so the page and the program's help cannot disagree.
package manpage

import (
	"cmp"
	"strings"

	"github.com/urfave/cli/v3"

	"rootlesskit/internal/flagdoc"
)

// Section is an extra section, such as EXIT STATUS: a text, then a list of
// terms. Blank lines separate paragraphs of the text; lines that begin with a
// blank are shown unchanged.
type Section struct {
	Title string
	Text  string
	Terms []Term
}

// Term is an entry of a list, such as an environment variable.
type Term struct {
	Term, Text string
}

// Render returns the page of a command that has not been run. The extra
// sections follow those of the command itself.
func Render(cmd *cli.Command, extra ...Section) []byte {
	p := &page{}
	p.macro(".TH", strings.ToUpper(cmd.Name), "1", "", "RootlessKit "+cmd.Version, "User Commands")
	p.section("NAME")
	p.line(escape(cmd.Name) + ` \- ` + escape(cmd.Usage))
	p.section("SYNOPSIS")
	p.synopsis(cmd.Name, cmd, len(cmd.Commands) > 0)
	if cmd.Description != "" {
		p.section("DESCRIPTION")
		p.text(cmd.Description)
	}
	if flags := flagdoc.Groups(flagdoc.WithBuiltin(cmd)); len(flags) > 0 {
		p.section("OPTIONS")
		p.flagGroups(flags)
	}
	if len(cmd.Commands) > 0 {
		p.section("COMMANDS")
		p.commands(cmd)
	}
	for _, s := range extra {
		p.section(s.Title)
		p.text(s.Text)
		for _, t := range s.Terms {
			p.term(`\fB`+escape(t.Term)+`\fR`, t.Text)
		}
	}
	return p.roff
}

func (p *page) commands(cmd *cli.Command) {
	for _, sub := range cmd.Commands {
		if sub.Hidden {
			continue
		}
		p.macro(".SS", sub.Name)
		p.synopsis(cmd.Name+" "+sub.Name, sub, false)
		p.line(".PP")
		p.text(cmp.Or(sub.Description, sub.Usage))
		p.flagGroups(flagdoc.Groups(sub.Flags))
	}
}

// synopsis returns UsageText if the command has one.
func (p *page) synopsis(name string, cmd *cli.Command, hasCommands bool) {
	args, found := strings.CutPrefix(cmd.UsageText, name)
	if !found {
		if len(cmd.Flags) > 0 {
			args = " [options]"
		}
		if hasCommands {
			args += " command [command options]"
		}
		if cmd.ArgsUsage != "" {
			args += " " + cmd.ArgsUsage
		}
	}
	p.line(`\fB` + escape(name) + `\fR` + escape(args))
}

// flagGroups renders the flags by category, starting with those without one.
func (p *page) flagGroups(groups []flagdoc.Group) {
	for _, g := range groups {
		if g.Name != "" {
			p.macro(".SS", g.Name)
		}
		for _, f := range g.Flags {
			p.flag(f)
		}
	}
}

func (p *page) flag(f flagdoc.Doc) {
	var names []string
	for _, n := range f.Names {
		names = append(names, `\fB`+escape(n)+`\fR`)
	}
	term := strings.Join(names, ", ")
	if f.Value != "" {
		term += ` \fI` + escape(f.Value) + `\fR`
	}
	p.term(term, f.Usage)
}
