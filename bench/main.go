// Command bench measures RootlessKit against its peers: the same loads, through
// every launcher and driver that is installed, interleaved over several rounds.
//
// Theory of operation. The first process builds the launchers into a directory
// that everyone can read and starts itself again to measure (as the test user,
// where root started it), with the results as JSON on a pipe. For each sample the
// measuring process starts one launcher whose command is this same program as an
// agent: it serves inside the namespace, and runs the loads that go out of it. The
// agent ends with its standard input, and the launcher with the agent, so nothing
// outlives an interrupted run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

type options struct {
	only, targets  string
	address        string
	rounds         int
	duration       time.Duration
	quick          bool
	ours, upstream string
	podman         string
	output, note   string
	list, render   bool
	measure        bool
	verbose        bool
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == agentArg {
		exitOn(runAgent(os.Args[2]))
		return
	}
	if len(os.Args) == 4 && os.Args[1] == agentArg {
		exitOn(runWebServer(os.Args[2], os.Args[3]))
		return
	}
	if len(os.Args) == 3 && os.Args[1] == dockerArg {
		exitOn(runDocker(os.Args[2]))
		return
	}
	if len(os.Args) == 2 && os.Args[1] == lanArg {
		exitOn(runLANServer())
		return
	}
	if len(os.Args) > 2 && os.Args[1] == podmanArg {
		exitOn(runPodman(os.Args[2:]))
		return
	}
	opts, err := parseFlags(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	exitOn(err)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	exitOn(run(ctx, opts))
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, opts options) error {
	switch {
	case opts.list:
		printList(os.Stdout)
		return nil
	case opts.measure:
		return measureTo(ctx, os.Stdout, opts)
	default:
		return benchmark(ctx, opts)
	}
}

func parseFlags(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&o.only, "only", "", "comma-separated groups or figures to measure (see --list; default: all)")
	f.StringVar(&o.targets, "targets", "", "comma-separated targets to measure (default: all that are installed)")
	f.StringVar(&o.address, "address", "127.0.0.1", "IPv4 `address` of the host to publish on and connect to")
	f.IntVar(&o.rounds, "rounds", 5, "rounds over all figures and targets")
	f.DurationVar(&o.duration, "duration", 2*time.Second, "how long each load runs")
	f.BoolVar(&o.quick, "quick", false, "one short round, to see that everything works: the numbers mean little")
	f.StringVar(&o.ours, "ours", "", "`path` of our launcher (default: build ./cmd/rootlesskit)")
	f.StringVar(&o.upstream, "upstream", "", "`path` of upstream's launcher (default: build "+upstreamVersion+" from the module proxy)")
	f.StringVar(&o.podman, "podman", findOwnHelper(), "`path` of Podman's own rootlessport, to compare ours with")
	f.StringVar(&o.output, "output", "", "`directory` of results.json, RESULTS.md and the charts (default: bench/ in the module)")
	f.StringVar(&o.note, "note", "", "a `remark` on the run, for RESULTS.md")
	f.BoolVar(&o.list, "list", false, "list the figures and targets")
	f.BoolVar(&o.render, "render", false, "measure nothing; write RESULTS.md and the charts again from results.json")
	f.BoolVar(&o.verbose, "v", false, "print the process ids of each launcher, for profilers")
	f.BoolVar(&o.measure, "measure", false, "(internal) measure and print JSON")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if o.quick {
		o.rounds, o.duration = 1, 300*time.Millisecond
	}
	if o.rounds < 1 || o.duration <= 0 {
		return o, fmt.Errorf("--rounds=%d and --duration=%s must be positive", o.rounds, o.duration)
	}
	return o, nil
}

// benchmark builds, measures and reports.
func benchmark(ctx context.Context, opts options) error {
	if _, _, err := opts.selection(); err != nil {
		return err
	}
	dir, err := moduleDir(ctx)
	if err != nil {
		return err
	}
	out, err := newOutput(opts.output, dir)
	if err != nil {
		return err
	}
	results, err := out.load()
	if err != nil {
		return err
	}
	if !opts.render {
		latest, err := buildAndMeasure(ctx, opts, dir)
		if err != nil {
			return err
		}
		printSummary(os.Stdout, latest)
		results = results.merge(latest)
	}
	return out.save(results)
}

func buildAndMeasure(ctx context.Context, opts options, moduleDir string) (Results, error) {
	tools, err := build(ctx, opts, moduleDir)
	if err != nil {
		return Results{}, err
	}
	defer tools.remove()
	results, err := measureApart(ctx, opts, tools)
	if err != nil {
		return Results{}, err
	}
	results.Runs[0].describe(ctx, moduleDir, opts)
	return results, nil
}

// selection returns the figures and targets that the flags ask for.
func (o options) selection() ([]Figure, []Target, error) {
	figures, err := choose("--only", o.only, allFigures(), func(f Figure) []string { return []string{f.ID, f.Group} })
	if err != nil {
		return nil, nil, err
	}
	known := allTargets
	if o.targets == "" {
		known = usualTargets()
	}
	targets, err := choose("--targets", o.targets, known, func(t Target) []string { return []string{t.Name} })
	return figures, targets, err
}

// choose keeps the items that one of the comma-separated names means, all of
// them for "". A name that means nothing is an error.
func choose[T any](flagName, names string, all []T, namesOf func(T) []string) ([]T, error) {
	if names == "" {
		return all, nil
	}
	wanted := map[string]bool{}
	for name := range strings.SplitSeq(names, ",") {
		wanted[name] = false
	}
	var chosen []T
	for _, item := range all {
		keep := false
		for _, name := range namesOf(item) {
			if _, ok := wanted[name]; ok {
				wanted[name], keep = true, true
			}
		}
		if keep {
			chosen = append(chosen, item)
		}
	}
	for name, found := range wanted {
		if !found {
			return nil, fmt.Errorf("%s=%s: nothing has the name %q (see --list)", flagName, names, name)
		}
	}
	return chosen, nil
}
