// Command mutants breaks the program on purpose, in one of the ways of the files
// *.mutant at a time, and runs the tests that should notice. A mutant that they do
// not notice has survived, and makes it fail: a test is missing.
//
//	go run ./test/mutants [-list] [-build] [PATTERN]...
//
// works on a copy of the tree; patterns are of names, as in path/filepath. A file
// says in its first line what is broken, then which tests should notice, and
// where: lines that begin with "-" stand in the file once, one after another, and
// those that begin with "+" take their place. Indentation does not count.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	list := flag.Bool("list", false, "print the mutants, and run nothing")
	build := flag.Bool("build", false, "build the mutants, and run no tests")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *list, *build, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, list, build bool, patterns []string) error {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("finding the module: %w", err)
	}
	dir := strings.TrimSpace(string(root))
	mutants, err := readAll(filepath.Join(dir, "test", "mutants"), patterns)
	if err != nil {
		return err
	}
	if list {
		for _, m := range mutants {
			fmt.Printf("%s: %s\n", m.name, m.what)
		}
		return nil
	}
	work, err := copyTree(ctx, dir)
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if build {
		for i := range mutants {
			mutants[i].tests = nil
		}
	}
	return tryAll(ctx, work, mutants, build)
}

// tryAll tells of each mutant what became of it, and goes on after one that
// proves nothing.
func tryAll(ctx context.Context, work string, mutants []mutant, build bool) error {
	var failed []string
	for i, m := range mutants {
		began := time.Now()
		result, err := m.try(ctx, work)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			result = "BROKEN"
		} else if build {
			result = "built"
		}
		fmt.Printf("%3d/%d %-8s %s: %s (%.0fs)\n", i+1, len(mutants), result, m.name, m.what, time.Since(began).Seconds())
		if err != nil {
			fmt.Println(err)
		}
		if err != nil || result == survived {
			failed = append(failed, m.name)
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("%d of %d were not noticed: %s", len(failed), len(mutants), strings.Join(failed, " "))
	}
	return nil
}

// copyTree copies what git knows of and what it does not ignore to a place where
// every user can read it: as root, the tests run as another.
func copyTree(ctx context.Context, dir string) (string, error) {
	work, err := os.MkdirTemp("", "rootlesskit-mutants")
	if err != nil {
		return "", err
	}
	const script = `git -C "$0" ls-files -z --cached --others --exclude-standard | tar -C "$0" --null -T - -c --ignore-failed-read -f - | tar -C "$1" -xf -`
	out, err := exec.CommandContext(ctx, "sh", "-c", script, dir, work).CombinedOutput()
	if err == nil {
		err = os.Chmod(work, 0o755)
	}
	if err != nil {
		os.RemoveAll(work)
		return "", fmt.Errorf("copying the tree: %w: %s", err, out)
	}
	return work, nil
}
