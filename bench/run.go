package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// runner takes the samples.
type runner struct {
	opts    options
	tools   tools
	drivers map[string]string // as the launcher of each target reports them
}

// measureTo is the measuring process.
func measureTo(ctx context.Context, w io.Writer, opts options) error {
	if err := adoptOrphans(); err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	r := &runner{opts: opts, tools: tools{filepath.Dir(exe)}, drivers: map[string]string{}}
	results, err := r.measure(ctx)
	if err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(results)
}

func (r *runner) open(ctx context.Context, t Target) (*session, error) {
	s, err := openSession(ctx, r.tools, r.opts.address, t)
	if err != nil {
		return nil, err
	}
	r.drivers[t.Name] = s.driver()
	if r.opts.verbose && t.Launcher != "" {
		launcher, helpers := s.processes(r.tools)
		progress("%s: launcher %v, helpers %v", t.Name, launcher, helpers)
	}
	return s, nil
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// measure interleaves: every round goes over all figures, and every figure
// over all targets, so that a slow drift of the machine meets all alike.
func (r *runner) measure(ctx context.Context) (Results, error) {
	figures, targets, err := r.opts.selection()
	if err != nil {
		return Results{}, err
	}
	installed, skipped := r.usable(ctx, targets)
	results := Results{Runs: []Run{{Skipped: skipped}}}
	index := map[[2]string]int{}
	for round := range r.opts.rounds {
		for _, f := range figures {
			if f.MaxRounds > 0 && round >= f.MaxRounds {
				continue
			}
			for target, sample := range r.round(ctx, f, rotate(installed, round)) {
				key := [2]string{f.ID, target}
				if _, ok := index[key]; !ok {
					index[key] = len(results.Entries)
					results.Entries = append(results.Entries, Entry{Figure: f.ID, Target: target})
				}
				results.Entries[index[key]].add(sample, r.drivers[target])
			}
			if ctx.Err() != nil {
				return Results{}, ctx.Err()
			}
		}
	}
	return results, nil
}

// usable keeps the targets that work on this machine and in these builds, and
// says why the others do not.
func (r *runner) usable(ctx context.Context, targets []Target) (usable []Target, skipped []string) {
	for _, t := range targets {
		if err := r.try(ctx, t); err != nil {
			skipped = append(skipped, fmt.Sprintf("%s: %v", t.Name, err))
			progress("skipping %s", skipped[len(skipped)-1])
			continue
		}
		usable = append(usable, t)
	}
	return usable, skipped
}

func (r *runner) try(ctx context.Context, t Target) error {
	if name := t.missing(); name != "" {
		return fmt.Errorf("%s is not installed", name)
	}
	if t.Launcher == podmanOwn && r.opts.podman == "" {
		return errors.New("no rootlessport of Podman is installed (--podman=PATH takes one)")
	}
	s, err := r.open(ctx, t)
	if err != nil {
		return err
	}
	defer s.close()
	return waitServing(ctx, false, s.addr(), startTimeout)
}

// rotate starts each round with another target, for none to be always first.
func rotate(targets []Target, n int) []Target {
	n %= max(len(targets), 1)
	return append(append([]Target{}, targets[n:]...), targets[:n]...)
}

// sample is a target's part of a round.
type sample struct {
	values Values
	err    error
}

// round takes the samples of one figure.
func (r *runner) round(ctx context.Context, f Figure, targets []Target) map[string]sample {
	taken := map[string][]Values{}
	samples := map[string]sample{}
	for range max(f.Repeat, 1) {
		for _, t := range targets {
			if !f.For(t) || samples[t.Name].err != nil || ctx.Err() != nil {
				continue
			}
			v, err := f.Sample(ctx, r, t)
			if err != nil {
				samples[t.Name] = sample{err: err}
				progress("%s %s: %v", f.ID, t.Name, err)
				continue
			}
			taken[t.Name] = append(taken[t.Name], v)
			samples[t.Name] = sample{values: medianValues(taken[t.Name])}
		}
	}
	for _, t := range targets {
		if v := samples[t.Name].values; v != nil {
			progress("%s %s: %s", f.ID, t.Name, f.format(v))
		}
	}
	return samples
}

// format shows the values in one line.
func (f Figure) format(v Values) string {
	var parts []string
	for _, m := range f.Metrics {
		if x, ok := v[m.Name]; ok {
			parts = append(parts, m.Name+" "+m.number(x)+" "+m.Unit)
		}
	}
	return strings.Join(parts, ", ")
}
