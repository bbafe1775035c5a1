package helper

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// Binary is an installed helper program.
type Binary struct {
	Path    string
	options map[string]bool
}

// probeTimeout bounds how long a program may take to print its help or version: a busy
// machine has needed more than three seconds for it.
const probeTimeout = 30 * time.Second

// Probe finds a program by its name or path and reads the names of its options
// from its --help. It returns the look-up error of package exec unchanged.
func Probe(name string) (*Binary, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, err
	}
	// Some versions of pasta exit with 1 after printing their help.
	out, err := ask(path, "--help")
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("%s --help did not end within %v: is this the right program?", path, probeTimeout)
	}
	b := &Binary{Path: path, options: longOptions(string(out))}
	if len(b.options) == 0 {
		return nil, fmt.Errorf("%s --help names no options (%v): %.200q", path, err, out)
	}
	return b, nil
}

// longOptions finds texts such as --a-long-option.
func longOptions(help string) map[string]bool {
	found := map[string]bool{}
	for {
		_, rest, more := strings.Cut(help, "--")
		if !more {
			return found
		}
		name := rest[:len(rest)-len(strings.TrimLeft(rest, "abcdefghijklmnopqrstuvwxyz0123456789-"))]
		if name != "" && name[0] != '-' {
			found["--"+name] = true
		}
		help = rest[len(name):]
	}
}

func ask(path, option string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, option)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return out, err
}

// Version returns the first line that the program prints about itself, or why there
// is none.
func (b *Binary) Version() string {
	out, err := ask(b.Path, "--version")
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if line == "" {
		return fmt.Sprintf("%s, whose version is not known: %v", b.Path, err)
	}
	return line
}

// Has reports whether the program has an option, such as "--mtu".
func (b *Binary) Has(option string) bool { return b.options[option] }

// Lacks returns the first of the options that the program does not have, or "".
func (b *Binary) Lacks(options ...string) string {
	for _, o := range options {
		if !b.options[o] {
			return o
		}
	}
	return ""
}
