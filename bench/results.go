package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Results is what results.json holds: the latest values of every figure and
// target, and the runs that they come from.
type Results struct {
	Runs    []Run   `json:"runs"`
	Entries []Entry `json:"entries"`
	// Bases were replaced by a later run, and are still what entries of their own
	// run are compared with.
	Bases []Entry `json:"bases,omitempty"`
}

// Run says where values come from.
type Run struct {
	Date    string   `json:"date"`
	Command string   `json:"command"` // repeats the run
	Commit  string   `json:"commit"`
	CPU     string   `json:"cpu"`
	Memory  string   `json:"memory"`
	Kernel  string   `json:"kernel"`
	Go      string   `json:"go"`
	Helpers []string `json:"helpers"` // versions of other programs
	Skipped []string `json:"skipped,omitempty"`
	Note    string   `json:"note,omitempty"` // of who measured
}

// Entry is one figure of one target.
type Entry struct {
	Figure string `json:"figure"`
	Target string `json:"target"`
	Driver string `json:"driver,omitempty"` // as the launcher reports it
	Run    int    `json:"run"`              // index of Results.Runs
	// Rounds has one element a round, null where it failed.
	Rounds []Values `json:"rounds"`
	Error  string   `json:"error,omitempty"` // of the latest round that failed
}

func (e *Entry) add(s sample, driver string) {
	if driver != "" {
		e.Driver = driver
	}
	e.Rounds = append(e.Rounds, s.values)
	if s.err != nil {
		e.Error = s.err.Error()
	}
}

// failures counts the rounds without values.
func (e *Entry) failures() (n int) {
	for _, v := range e.Rounds {
		if v == nil {
			n++
		}
	}
	return n
}

// column is the values of one metric, over the rounds that have it.
func (e *Entry) column(metric string) []float64 {
	var xs []float64
	for _, v := range e.Rounds {
		if x, ok := v[metric]; ok {
			xs = append(xs, x)
		}
	}
	return xs
}

// find returns nil where there is no such entry.
func (r Results) find(figure, target string) *Entry {
	for i, e := range r.Entries {
		if e.Figure == figure && e.Target == target {
			return &r.Entries[i]
		}
	}
	return nil
}

// ratio is the median of the rounds' ratios of a target to a base. Only values
// of one run were interleaved, so only they are compared.
func (r Results) ratio(figure, metric, target, base string) (float64, bool) {
	of := r.find(figure, target)
	if of == nil {
		return 0, false
	}
	i := slices.IndexFunc(r.Bases, func(e Entry) bool { return e.Figure == figure && e.Target == base && e.Run == of.Run })
	to := r.find(figure, base)
	if i >= 0 {
		to = &r.Bases[i]
	}
	if to == nil || of.Run != to.Run {
		return 0, false
	}
	rs := ratios(of.Rounds, to.Rounds, metric)
	if len(rs) == 0 {
		return 0, false
	}
	return median(rs), true
}

// merge replaces what the latest run measured, and forgets what failed, and
// runs of which nothing is left.
func (r Results) merge(latest Results) Results {
	var merged Results
	take := func(from Results, keep func(Entry) bool) {
		index := map[int]int{}
		renumbered := func(e Entry) Entry {
			if _, ok := index[e.Run]; !ok {
				index[e.Run] = len(merged.Runs)
				merged.Runs = append(merged.Runs, from.Runs[e.Run])
			}
			e.Run = index[e.Run]
			return e
		}
		type measured struct {
			figure string
			run    int
		}
		kept := map[measured]bool{}
		var replaced []Entry
		for _, e := range from.Entries {
			if !keep(e) {
				replaced = append(replaced, e)
				continue
			}
			kept[measured{e.Figure, e.Run}] = true
			merged.Entries = append(merged.Entries, renumbered(e))
		}
		for _, e := range slices.Concat(replaced, from.Bases) {
			if isBase(e.Target) && kept[measured{e.Figure, e.Run}] {
				merged.Bases = append(merged.Bases, renumbered(e))
			}
		}
	}
	take(r, func(e Entry) bool {
		return latest.find(e.Figure, e.Target) == nil && known(e) && e.failures() < len(e.Rounds)
	})
	take(latest, func(Entry) bool { return true })
	return merged
}

// isBase says that others are compared with the target.
func isBase(target string) bool {
	return target == direct || slices.ContainsFunc(allTargets, func(t Target) bool { return t.Name == target && t.Launcher == upstream })
}

// known says that the figure and the target of an entry still exist.
func known(e Entry) bool {
	return slices.ContainsFunc(allFigures(), func(f Figure) bool { return f.ID == e.Figure }) &&
		slices.ContainsFunc(allTargets, func(t Target) bool { return t.Name == e.Target })
}

// describe fills in what was measured, where and when.
func (r *Run) describe(ctx context.Context, moduleDir string, opts options) {
	r.Date = time.Now().UTC().Format("2006-01-02 15:04 UTC")
	r.Note = opts.note
	r.Command = commandLine(os.Args[1:], opts)
	r.Commit = outputLine(ctx, "git", "-C", moduleDir, "describe", "--always", "--dirty")
	r.CPU = strconv.Itoa(runtime.NumCPU()) + " x " + procValue("/proc/cpuinfo", "model name")
	r.Memory = memorySize(procValue("/proc/meminfo", "MemTotal"))
	r.Kernel = outputLine(ctx, "uname", "-srm")
	r.Go = runtime.Version()
	if opts.upstream == "" {
		r.Helpers = append(r.Helpers, "upstream rootlesskit "+upstreamVersion)
	}
	for _, name := range []string{"slirp4netns", "pasta"} {
		if version := outputLine(ctx, name, "--version"); version != "" {
			r.Helpers = append(r.Helpers, version)
		}
	}
}

// commandLine is the command of the run. Where this machine has the launchers and the
// results is of no use on another one: only their names stay.
func commandLine(args []string, opts options) string {
	line := strings.Join(append([]string{"go run ./bench"}, args...), " ")
	for _, path := range []string{opts.ours, opts.upstream, opts.output} {
		if path != "" {
			line = strings.ReplaceAll(line, path, filepath.Base(path))
		}
	}
	return line
}

// memorySize shows "24684096 kB" as GiB.
func memorySize(kib string) string {
	n, err := strconv.ParseFloat(strings.TrimSuffix(kib, " kB"), 64)
	if err != nil {
		return kib
	}
	return fmt.Sprintf("%.0f GiB", n/(1<<20))
}

// outputLine is the first line that a program prints, or "".
func outputLine(ctx context.Context, name string, args ...string) string {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

// procValue finds the first "KEY : VALUE" line of a file, or returns "".
func procValue(path, key string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for sc := bufio.NewScanner(bytes.NewReader(data)); sc.Scan(); {
		k, v, ok := strings.Cut(sc.Text(), ":")
		if ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
