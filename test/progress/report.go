package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// event is a line of go test -json: see "go doc test2json".
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

// report is what has become of the tests so far.
type report struct {
	out     io.Writer
	verbose bool
	began   time.Time
	all     int // packages
	ended   int

	running []string            // "package.Test", in the order of their start
	output  map[string][]string // of what has not ended
	passed  int
	failed  []string
	skipped []string
}

func newReport(out io.Writer, packages int, verbose bool) *report {
	return &report{out: out, verbose: verbose, began: time.Now(), all: packages, output: map[string][]string{}}
}

func (e event) name() string {
	_, short, found := strings.Cut(e.Package, "/")
	if !found {
		short = e.Package
	}
	if e.Test != "" {
		short += "." + e.Test
	}
	return short
}

func (r *report) add(e event) {
	name := e.name()
	switch e.Action {
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "run":
		r.running = append(r.running, name)
	case "output":
		if r.verbose {
			fmt.Fprint(r.out, e.Output)
		} else {
			r.output[name] = append(r.output[name], e.Output)
		}
	case "pass", "fail", "skip":
		r.end(e, name)
		delete(r.output, name)
	}
}

// end takes down the result of a test, or of a package.
func (r *report) end(e event, name string) {
	if e.Test == "" {
		r.endPackage(e, name)
		return
	}
	r.running = slices.DeleteFunc(r.running, func(n string) bool { return n == name })
	switch e.Action {
	case "pass":
		r.passed++
	case "fail":
		r.failed = append(r.failed, name)
		r.show(name)
	case "skip":
		r.skipped = append(r.skipped, name+skipReason(r.output[name]))
	}
}

func (r *report) endPackage(e event, name string) {
	r.ended++
	word := map[string]string{"pass": "ok", "fail": "FAIL", "skip": "no tests"}[e.Action]
	if e.Action == "fail" {
		r.failed = append(r.failed, name)
		r.show(name)
	}
	if e.Action != "skip" {
		fmt.Fprintf(r.out, "%-4s %-40s %6.1f s   %d of %d packages, %s\n", word, name, e.Elapsed, r.ended, r.all, r.since())
	}
}

// show prints what something that failed has printed.
func (r *report) show(name string) {
	for _, line := range r.output[name] {
		if !strings.HasPrefix(line, "=== ") {
			fmt.Fprint(r.out, line)
		}
	}
}

// skipReason is the last line that a test printed before the line of its result.
func skipReason(output []string) string {
	for _, line := range slices.Backward(output) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "---") && !strings.HasPrefix(line, "===") {
			return ": " + line
		}
	}
	return ""
}

// underWay prints which tests run, and of the subtests the first.
func (r *report) underWay() {
	if r.verbose || len(r.running) == 0 {
		return
	}
	var now []string
	for _, name := range r.running {
		parent, _, _ := strings.Cut(name[strings.LastIndexByte(name, '.')+1:], "/")
		if !slices.Contains(now, parent) {
			now = append(now, parent)
		}
	}
	more := ""
	if len(now) > 3 {
		now, more = now[:3], ", ..."
	}
	fmt.Fprintf(r.out, "     %s: %d tests passed, now %s%s\n", r.since(), r.passed, strings.Join(now, ", "), more)
}

// sum is printed last.
func (r *report) sum() {
	for _, name := range r.skipped {
		fmt.Fprintln(r.out, "skipped", name)
	}
	for _, name := range r.failed {
		fmt.Fprintln(r.out, "FAILED", name)
	}
	fmt.Fprintf(r.out, "%d tests and subtests passed, %d skipped; failed, with packages: %d; %s\n", r.passed, len(r.skipped), len(r.failed), r.since())
}

func (r *report) since() string { return time.Since(r.began).Round(time.Second).String() }
