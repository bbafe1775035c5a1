package completion

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v3"
)

// Fish renders a script for fish.
func Fish(cmd *cli.Command) []byte {
	p := newProgram(cmd)
	var b strings.Builder
	fmt.Fprintf(&b, `# fish completion for %[1]s, generated from its options

function __%[1]s_in_options --description 'no command was given so far'
    set -l tokens (commandline -opc)
    set -e tokens[1]
    while set -q tokens[1]
        switch $tokens[1]
            case %[2]s
                set -e tokens[1]
            case '-*'
            case '*'
                return 1
        end
        set -e tokens[1]
    end
end

complete -c %[1]s -f
`, p.name, strings.Join(p.values(), " "))
	own := "__" + p.name + "_in_options"
	for _, o := range p.flags {
		b.WriteString(fishFlag(p.name, own, o))
	}
	if len(p.commands) == 0 {
		// The function would take a long option in first position for its own.
		values := append([]string{"-"}, p.values()...)
		fmt.Fprintf(&b, "complete -c %s -x -a '(__fish_complete_subcommand %s)'\n", p.name, strings.Join(values, " "))
	}
	for _, c := range p.commands {
		fmt.Fprintf(&b, "complete -c %s -n %s -a %s -d '%s'\n", p.name, own, c.name, fishEscape(c.usage))
		for _, o := range c.flags {
			b.WriteString(fishFlag(p.name, "'__fish_seen_subcommand_from "+c.name+"'", o))
		}
	}
	return []byte(b.String())
}

func fishFlag(program, condition string, o option) string {
	s := "complete -c " + program + " -n " + condition
	for _, name := range o.names {
		if long, ok := strings.CutPrefix(name, "--"); ok {
			s += " -l " + long
		} else {
			s += " -s " + name[1:]
		}
	}
	switch {
	case len(o.choices) > 0:
		s += " -x -a '" + strings.Join(o.choices, " ") + "'"
	case o.directory:
		s += " -x -a '(__fish_complete_directories)'"
	case o.files:
		s += " -r -F"
	case o.takes:
		s += " -x"
	}
	return s + " -d '" + fishEscape(summary(o.usage)) + "'\n"
}

func fishEscape(s string) string { return strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) }
