package completion

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v3"
)

// Zsh renders a function for zsh, to be autoloaded as _NAME.
func Zsh(cmd *cli.Command) []byte {
	p := newProgram(cmd)
	var b strings.Builder
	fmt.Fprintf(&b, "#compdef %s\n# zsh completion for %[1]s, generated from its options\n\n", p.name)
	if len(p.commands) == 0 {
		b.WriteString("_arguments -S \\\n" + zshFlags(p, "\t") +
			"\t'(-):command:_command_names -e' \\\n\t'*::arguments:_normal'\n")
		return []byte(b.String())
	}
	b.WriteString("local state\n_arguments -S \\\n" + zshFlags(p, "\t") + "\t'1:command:((")
	for _, c := range p.commands {
		fmt.Fprintf(&b, `%s\:"%s" `, c.name, zshEscape(summary(c.usage)))
	}
	b.WriteString("))' \\\n\t'*::argument:->arguments'\n[[ $state == arguments ]] || return\ncase $words[1] in\n")
	for _, c := range p.commands {
		fmt.Fprintf(&b, "%s)\n\t_arguments -S \\\n%s\t\t'*:argument: '\n\t;;\n", c.name, zshFlags(c, "\t\t"))
	}
	b.WriteString("esac\n")
	return []byte(b.String())
}

func zshFlags(p program, indent string) string {
	var b strings.Builder
	for _, o := range p.flags {
		for _, name := range o.names {
			spec := name
			switch {
			case o.repeats:
				spec = "*" + name
			case len(o.names) > 1:
				spec = "(" + strings.Join(o.names, " ") + ")" + name
			}
			if o.takes && strings.HasPrefix(name, "--") {
				spec += "="
			}
			spec += "[" + zshEscape(summary(o.usage)) + "]"
			if o.takes {
				spec += ":value:" + zshValues(o)
			}
			b.WriteString(indent + "'" + spec + "' \\\n")
		}
	}
	return b.String()
}

func zshValues(o option) string {
	switch {
	case len(o.choices) > 0:
		return "(" + strings.Join(o.choices, " ") + ")"
	case o.directory:
		return "_files -/"
	case o.files:
		return "_files"
	}
	return " "
}

// zshEscape escapes a text for a spec in single quotes.
func zshEscape(s string) string {
	return strings.NewReplacer(`\`, `\\`, "'", `'\''`, "[", `\[`, "]", `\]`, ":", `\:`, `"`, "").Replace(s)
}
