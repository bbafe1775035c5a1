// Package completion renders a command line as completion scripts for shells.
// It supports two kinds: programs with subcommands, and programs whose
// arguments are another command with its arguments. The scripts are made from
// the flags that the program parses, so the two cannot disagree.
package completion

import (
	"regexp"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"
)

// program is what shells need to know about a command line.
type program struct {
	name     string
	usage    string
	flags    []option
	commands []program // none if the arguments are a command
}

// option is a flag.
type option struct {
	names     []string // with their dashes
	usage     string
	takes     bool // a value
	repeats   bool
	choices   []string // the values, if they are known
	files     bool
	directory bool
}

// newProgram examines a command that has not been run.
func newProgram(cmd *cli.Command) program {
	p := program{name: cmd.Name, usage: cmd.Usage}
	flags := append(slices.Clone(cmd.Flags), cli.HelpFlag)
	if cmd.Version != "" {
		flags = append(flags, cli.VersionFlag)
	}
	for _, f := range flags {
		if v, ok := f.(cli.VisibleFlag); ok && !v.IsVisible() {
			continue
		}
		p.flags = append(p.flags, newOption(f))
	}
	for _, c := range cmd.Commands {
		p.commands = append(p.commands, newProgram(c))
	}
	return p
}

// choiceList finds the values that the text of a flag lists: "[auto, true]".
var choiceList = regexp.MustCompile(`\[([a-z0-9+-]+(?:, [a-z0-9+-]+)+|[a-z0-9+]+\+[a-z0-9]+)\]`)

func newOption(f cli.Flag) option {
	o := option{}
	for _, n := range f.Names() {
		if len(n) == 1 {
			o.names = append(o.names, "-"+n)
		} else {
			o.names = append(o.names, "--"+n)
		}
	}
	if doc, ok := f.(cli.DocGenerationFlag); ok {
		o.usage, o.takes = strings.ReplaceAll(doc.GetUsage(), "`", ""), doc.TakesValue()
	}
	if m, ok := f.(cli.DocGenerationMultiValueFlag); ok {
		o.repeats = m.IsMultiValueFlag()
	}
	if m := choiceList.FindStringSubmatch(o.usage); m != nil && o.takes {
		o.choices = strings.Split(m[1], ", ")
	}
	long := o.names[0]
	if s, ok := f.(*cli.StringFlag); ok {
		o.files = s.TakesFile
	}
	o.directory = long == "--state-dir" || long == "--copy-up"
	return o
}

// values returns the names of the flags that take a value.
func (p program) values() []string {
	var names []string
	for _, o := range p.flags {
		if o.takes {
			names = append(names, o.names...)
		}
	}
	return names
}

func (p program) flagNames() []string {
	var names []string
	for _, o := range p.flags {
		names = append(names, o.names...)
	}
	return names
}

func (p program) commandNames() []string {
	var names []string
	for _, c := range p.commands {
		names = append(names, c.name)
	}
	return names
}

// summary returns the beginning of the usage, short enough for a menu.
func summary(usage string) string {
	for _, end := range []string{";", "(", "[", ": ", ", e.g."} {
		usage, _, _ = strings.Cut(usage, end)
	}
	return strings.TrimRight(usage, " ,:")
}
