// Package manpage renders a command line as a man page of section 1, in the
// man(7) macros. What is in the page beyond the command line comes as extra
// sections, so the page and the program's help cannot disagree.
package manpage

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"
)

// Section is an extra section, such as EXIT STATUS: text, then a list of
// terms. The text is in paragraphs separated by blank lines; lines that begin
// with a blank are shown as they are.
type Section struct {
	Title string
	Text  string
	Terms []Term
}

// Term is an entry of a list, such as an environment variable.
type Term struct {
	Term, Text string
}

// Render returns the page of a command that was not run yet. The extra
// sections follow those that the command itself gives.
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
	if flags := withBuiltin(cmd); len(flags) > 0 {
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

// withBuiltin adds the flags that the library adds when the command runs.
func withBuiltin(cmd *cli.Command) []cli.Flag {
	flags := slices.Clone(cmd.Flags)
	if !cmd.HideHelp {
		flags = append(flags, cli.HelpFlag)
	}
	if !cmd.HideVersion && cmd.Version != "" {
		flags = append(flags, cli.VersionFlag)
	}
	return flags
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
		for _, f := range sub.Flags {
			p.flag(f)
		}
	}
}

// synopsis is UsageText where the command has one.
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

// flagGroups renders the flags by category, those without one first.
func (p *page) flagGroups(flags []cli.Flag) {
	categories := []string{""}
	groups := map[string][]cli.Flag{}
	for _, f := range flags {
		c := category(f)
		if !slices.Contains(categories, c) {
			categories = append(categories, c)
		}
		groups[c] = append(groups[c], f)
	}
	for _, c := range categories {
		if c != "" {
			p.macro(".SS", c)
		}
		for _, f := range groups[c] {
			p.flag(f)
		}
	}
}

func category(f cli.Flag) string {
	if c, ok := f.(cli.CategorizableFlag); ok {
		return c.GetCategory()
	}
	return ""
}

func (p *page) flag(f cli.Flag) {
	if v, ok := f.(cli.VisibleFlag); ok && !v.IsVisible() {
		return
	}
	doc, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return
	}
	value, usage := placeholder(doc.GetUsage())
	var names []string
	for _, n := range f.Names() {
		names = append(names, `\fB`+escape(dashed(n))+`\fR`)
	}
	term := strings.Join(names, ", ")
	if doc.TakesValue() {
		term += ` \fI` + escape(cmp.Or(value, strings.ToUpper(doc.TypeName()))) + `\fR`
	}
	p.term(term, usage+notes(f, doc))
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// notes are the default and whether the flag can be repeated.
func notes(f cli.Flag, doc cli.DocGenerationFlag) string {
	var s strings.Builder
	if m, ok := f.(cli.DocGenerationMultiValueFlag); ok && m.IsMultiValueFlag() {
		s.WriteString(" (can be repeated)")
	}
	value := cmp.Or(doc.GetDefaultText(), strings.Trim(doc.GetValue(), `"`))
	off := value == "" || value == "false" && !doc.TakesValue()
	if doc.IsDefaultVisible() && !off {
		fmt.Fprintf(&s, " (default: %s)", value)
	}
	return s.String()
}

// placeholder finds the name of the flag's value, which is in back quotes.
func placeholder(usage string) (name, plain string) {
	before, rest, found := strings.Cut(usage, "`")
	name, after, closed := strings.Cut(rest, "`")
	if !found || !closed {
		return "", usage
	}
	return name, before + name + after
}
