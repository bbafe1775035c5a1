package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v3"
)

// splitCommand cuts the arguments where the command begins: at the first that
// is not a flag or a flag's value, or after "--". Everything after that belongs
// to the command, byte for byte, so the flag parser must not see it.
func splitCommand(flags []cli.Flag, args []string) (own, command []string) {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--":
			return args[:i], args[i+1:]
		case arg == "-" || !strings.HasPrefix(arg, "-"):
			return args[:i], args[i:]
		case takesValue(flags, arg):
			i++
		}
	}
	return args, nil
}

// takesValue reports whether the argument after this flag belongs to it.
func takesValue(flags []cli.Flag, arg string) bool {
	name := strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-")
	if strings.Contains(name, "=") {
		return false
	}
	for _, f := range flags {
		if _, isBool := f.(*cli.BoolFlag); slices.Contains(f.Names(), name) {
			return !isBool
		}
	}
	return false // unknown, or --help: the parser handles it
}
