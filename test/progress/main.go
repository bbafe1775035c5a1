// Command progress runs "go test" and says how far it is: each package that has
// ended, out of how many, and now and then the tests that are under way. What a test
// prints is shown if it fails. At the end come the failed and the skipped ones.
//
//	go run ./test/progress PACKAGE... -- FLAG...
//
// With -v among the flags, everything is shown as it comes.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"
	"time"
)

const interval = 20 * time.Second // between two lines about what is under way

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "progress:", err)
		code = 1
	}
	os.Exit(code)
}

func run(ctx context.Context, args []string, out io.Writer) (code int, err error) {
	packages, flags := args, []string(nil)
	if i := slices.Index(args, "--"); i >= 0 {
		packages, flags = args[:i], args[i+1:]
	}
	list := exec.CommandContext(ctx, "go", append([]string{"list"}, packages...)...)
	list.Stderr = os.Stderr
	all, err := list.Output()
	if err != nil {
		return 1, fmt.Errorf("listing the packages %v: %w", packages, err)
	}
	r := newReport(out, bytes.Count(all, []byte("\n")), slices.Contains(flags, "-v"))
	cmd := exec.CommandContext(ctx, "go", slices.Concat([]string{"test", "-json"}, flags, packages)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return 1, err
	}
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	r.follow(events)
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return 1, err
	}
	r.sum()
	return cmd.ProcessState.ExitCode(), nil
}

// follow reports what go test says, to its end.
func (r *report) follow(events io.Reader) {
	lines := make(chan event)
	go func() {
		defer close(lines)
		for d := json.NewDecoder(events); ; {
			var e event
			if err := d.Decode(&e); err != nil {
				if err != io.EOF { // not of go test
					_, _ = io.Copy(r.out, io.MultiReader(d.Buffered(), events))
				}
				return
			}
			lines <- e
		}
	}()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case e, more := <-lines:
			if !more {
				return
			}
			r.add(e)
		case <-tick.C:
			r.underWay()
		}
	}
}
