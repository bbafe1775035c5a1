// Package flagdoc describes flags, for both help and man pages.
package flagdoc

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"
)

// Doc describes a flag.
type Doc struct {
	Names []string // with their dashes
	Value string   // a name for the flag's value; empty if it takes none
	Usage string   // with the default, and how to turn off the flag
}

// Group is the flags of one category.
type Group struct {
	Name  string
	Flags []Doc
}

// Groups returns the visible flags of a command by category, in the order in which
// the categories first appear; flags without a category come first.
func Groups(flags []cli.Flag) []Group {
	groups := []Group{{}}
	for _, f := range flags {
		doc, ok := of(f)
		if !ok {
			continue
		}
		name := category(f)
		i := slices.IndexFunc(groups, func(g Group) bool { return g.Name == name })
		if i < 0 {
			i = len(groups)
			groups = append(groups, Group{Name: name})
		}
		groups[i].Flags = append(groups[i].Flags, doc)
	}
	return slices.DeleteFunc(groups, func(g Group) bool { return len(g.Flags) == 0 })
}

// WithBuiltin adds the flags that the library adds when the command runs.
func WithBuiltin(cmd *cli.Command) []cli.Flag {
	flags := slices.Clone(cmd.Flags)
	add := func(builtin cli.Flag) {
		if !slices.ContainsFunc(flags, func(f cli.Flag) bool { return f.Names()[0] == builtin.Names()[0] }) {
			flags = append(flags, builtin)
		}
	}
	if !cmd.HideHelp {
		add(cli.HelpFlag)
	}
	if !cmd.HideVersion && cmd.Version != "" {
		add(cli.VersionFlag)
	}
	return flags
}

func category(f cli.Flag) string {
	if c, ok := f.(cli.CategorizableFlag); ok {
		return c.GetCategory()
	}
	return ""
}

// of returns the description of a flag; ok is false for a hidden one.
func of(f cli.Flag) (d Doc, ok bool) {
	if v, has := f.(cli.VisibleFlag); has && !v.IsVisible() {
		return d, false
	}
	doc, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return d, false
	}
	for _, name := range f.Names() {
		d.Names = append(d.Names, dashed(name))
	}
	value, usage := placeholder(doc.GetUsage())
	if doc.TakesValue() {
		d.Value = cmp.Or(value, kind(f, doc))
	}
	d.Usage = usage + notes(f, doc, d.Names[0])
	return d, true
}

// kind returns a name for the value of a flag that does not give it one.
func kind(f cli.Flag, doc cli.DocGenerationFlag) string {
	if s, ok := f.(*cli.StringFlag); ok && s.TakesFile {
		return "FILE"
	}
	if doc.TypeName() == "string" {
		return "VALUE"
	}
	return strings.ToUpper(doc.TypeName())
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// notes returns the default, how to turn off a switch, and whether the flag can
// be repeated.
func notes(f cli.Flag, doc cli.DocGenerationFlag, name string) string {
	var s strings.Builder
	if m, ok := f.(cli.DocGenerationMultiValueFlag); ok && m.IsMultiValueFlag() {
		s.WriteString(" (can be repeated)")
	}
	value := cmp.Or(doc.GetDefaultText(), strings.Trim(doc.GetValue(), `"`))
	switch {
	case !doc.IsDefaultVisible(), value == "":
	case doc.TakesValue():
		fmt.Fprintf(&s, " (default: %s)", value)
	case value == "true":
		fmt.Fprintf(&s, " (default: on; %s=false turns it off)", name)
	}
	return s.String()
}

// placeholder finds the name of the flag's value, which the usage has in back quotes.
func placeholder(usage string) (name, plain string) {
	before, rest, found := strings.Cut(usage, "`")
	name, after, closed := strings.Cut(rest, "`")
	if !found || !closed {
		return "", usage
	}
	return name, before + name + after
}
