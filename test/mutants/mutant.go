package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// mutant is one way to break the program.
type mutant struct {
	name, what string
	tests      [][]string // arguments of go test
	hunks      []hunk
}

// hunk replaces lines of a file.
type hunk struct {
	file     string
	old, new []string
}

// survived is the result of a mutant that no test noticed.
const survived = "SURVIVED"

const extension = ".mutant"

// readAll reads the mutants of a directory whose names match one of the patterns.
func readAll(dir string, patterns []string) ([]mutant, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*"+extension))
	if err != nil {
		return nil, err
	}
	var mutants []mutant
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), extension)
		if !wanted(name, patterns) {
			continue
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		m, err := parse(name, string(b))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		mutants = append(mutants, m)
	}
	if len(mutants) == 0 {
		return nil, fmt.Errorf("no mutant matches %q", patterns)
	}
	return mutants, nil
}

func wanted(name string, patterns []string) bool {
	for _, p := range patterns {
		if ok, _ := filepath.Match(p, name); ok {
			return true
		}
	}
	return len(patterns) == 0
}

func parse(name, text string) (mutant, error) {
	m := mutant{name: name}
	for n, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		key, value, _ := strings.Cut(line, ": ")
		switch {
		case n == 0:
			m.what = line
		case line == "":
		case key == "test":
			m.tests = append(m.tests, strings.Fields(value))
		case key == "file":
			m.hunks = append(m.hunks, hunk{file: value})
		case len(m.hunks) > 0 && line[0] == '-':
			h := &m.hunks[len(m.hunks)-1]
			h.old = append(h.old, strings.TrimSpace(line[1:]))
		case len(m.hunks) > 0 && line[0] == '+':
			h := &m.hunks[len(m.hunks)-1]
			h.new = append(h.new, strings.TrimSpace(line[1:]))
		default:
			return m, fmt.Errorf("line %d is neither test, file, nor a line of a file: %q", n+1, line)
		}
	}
	if m.what == "" || len(m.tests) == 0 || len(m.hunks) == 0 {
		return m, errors.New("it lacks what is broken, a test, or a file")
	}
	return m, nil
}

// applied returns the file with the hunk's new lines.
func (h hunk) applied(content []byte) ([]byte, error) {
	lines := strings.Split(string(content), "\n")
	at := -1
	for i := range lines {
		if !h.matches(lines[i:]) {
			continue
		}
		if at >= 0 {
			return nil, fmt.Errorf("%s: the old lines are there twice, at %d and %d: %q", h.file, at+1, i+1, h.old)
		}
		at = i
	}
	if at < 0 {
		return nil, fmt.Errorf("%s: the old lines are not there, the mutant is stale: %q", h.file, h.old)
	}
	out := append(append(append([]string{}, lines[:at]...), h.new...), lines[at+len(h.old):]...)
	return []byte(strings.Join(out, "\n")), nil
}

func (h hunk) matches(lines []string) bool {
	if len(h.old) == 0 || len(lines) < len(h.old) {
		return false
	}
	for i, old := range h.old {
		if strings.TrimSpace(lines[i]) != old {
			return false
		}
	}
	return true
}

// apply changes the files below dir; restore puts them back.
func (m mutant) apply(dir string) (restore func() error, err error) {
	originals := map[string][]byte{}
	restore = func() error {
		var err error
		for path, content := range originals {
			err = errors.Join(err, os.WriteFile(path, content, 0o644))
		}
		return err
	}
	for _, h := range m.hunks {
		path := filepath.Join(dir, h.file)
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, errors.Join(err, restore())
		}
		if originals[path] == nil {
			originals[path] = bytes.Clone(content)
		}
		if content, err = h.applied(content); err == nil {
			err = os.WriteFile(path, content, 0o644)
		}
		if err != nil {
			return nil, errors.Join(err, restore())
		}
	}
	return restore, nil
}

// try breaks the program and runs the tests. One that cannot be built is an
// error: it proves nothing.
func (m mutant) try(ctx context.Context, dir string) (result string, err error) {
	restore, err := m.apply(dir)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, restore()) }()
	if out, err := goCommand(ctx, dir, append([]string{"build"}, m.packages()...)...); err != nil {
		return "", fmt.Errorf("it does not build: %w\n%s", err, out)
	}
	for _, test := range m.tests {
		out, err := goCommand(ctx, dir, append([]string{"test", "-count=1", "-timeout=4m"}, test...)...)
		switch {
		case ctx.Err() != nil:
			return "", ctx.Err()
		case bytes.Contains(out, []byte("no tests to run")), bytes.Contains(out, []byte("[setup failed]")), bytes.Contains(out, []byte("[build failed]")):
			return "", fmt.Errorf("go test %v: %s", test, out)
		case err != nil:
			return "killed", nil
		}
	}
	return survived, nil
}

// packages are those that are changed.
func (m mutant) packages() []string {
	var all []string
	for _, h := range m.hunks {
		all = append(all, "./"+filepath.Dir(h.file))
	}
	return all
}

func goCommand(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	return cmd.CombinedOutput()
}
