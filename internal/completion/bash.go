package completion

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v3"
)

// Bash renders a script for bash.
func Bash(cmd *cli.Command) []byte {
	p := newProgram(cmd)
	var b strings.Builder
	fmt.Fprintf(&b, `# bash completion for %[1]s, generated from its options

_%[1]s() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command= i
	# bash takes --option=value apart.
	if [[ $cur == = ]]; then
		cur=
	elif [[ $prev == = ]]; then
		prev=${COMP_WORDS[COMP_CWORD - 2]}
	fi
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		%[2]s) [[ ${COMP_WORDS[i + 1]} == = ]] || i=$((i + 1)) ;;
		=) i=$((i + 1)) ;;
		-*) ;;
		*)
			command=${COMP_WORDS[i]}
			break
			;;
		esac
	done
`, p.name, strings.Join(p.values(), "|"))
	b.WriteString(bashCommand(p))
	b.WriteString("\tcase $prev in\n")
	for _, o := range p.flags {
		if o.takes {
			fmt.Fprintf(&b, "\t%s) %sreturn ;;\n", strings.Join(o.names, "|"), bashValues(o))
		}
	}
	fmt.Fprintf(&b, `	esac
	if [[ $cur == -* ]]; then
		COMPREPLY=($(compgen -W '%s' -- "$cur"))
	else
		COMPREPLY=($(compgen %s -- "$cur"))
	fi
}
complete -F _%[3]s %[3]s
`, strings.Join(p.flagNames(), " "), bashArguments(p), p.name)
	return []byte(b.String())
}

// bashCommand completes what follows the command: the options of a subcommand, or the
// arguments of the program to run.
func bashCommand(p program) string {
	if len(p.commands) == 0 {
		return `	if [[ $command ]]; then
		if declare -F _comp_command_offset >/dev/null; then
			_comp_command_offset "$i"
		elif declare -F _command_offset >/dev/null; then
			_command_offset "$i"
		else
			compopt -o filenames
			COMPREPLY=($(compgen -f -- "$cur"))
		fi
		return
	fi
`
	}
	var b strings.Builder
	b.WriteString("\tcase $command in\n")
	for _, c := range p.commands {
		fmt.Fprintf(&b, "\t%s) COMPREPLY=($(compgen -W '%s' -- \"$cur\")); return ;;\n", c.name, strings.Join(c.flagNames(), " "))
	}
	b.WriteString("\tesac\n")
	return b.String()
}

func bashArguments(p program) string {
	if len(p.commands) == 0 {
		return "-c"
	}
	return "-W '" + strings.Join(p.commandNames(), " ") + "'"
}

func bashValues(o option) string {
	switch {
	case len(o.choices) > 0:
		return fmt.Sprintf("COMPREPLY=($(compgen -W '%s' -- \"$cur\")); ", strings.Join(o.choices, " "))
	case o.directory:
		return "compopt -o filenames; COMPREPLY=($(compgen -d -- \"$cur\")); "
	case o.files:
		return "compopt -o filenames; COMPREPLY=($(compgen -f -- \"$cur\")); "
	}
	return ""
}
