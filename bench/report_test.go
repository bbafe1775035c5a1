package main

import (
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

func entry(figure, target string, run int, rates ...float64) Entry {
	e := Entry{Figure: figure, Target: target, Run: run}
	for _, x := range rates {
		e.Rounds = append(e.Rounds, Values{"rate": x})
	}
	return e
}

func example() Results {
	return Results{
		Runs: []Run{{Command: "go run ./bench"}},
		Entries: []Entry{
			entry("tcp-up-1", direct, 0, 20, 10, 10),
			entry("tcp-up-1", "ours-builtin", 0, 10, 9, 8),
			entry("tcp-up-1", "upstream-builtin", 0, 5, 4.5, 4),
			entry("rr-1", direct, 0, 30000, 30000, 30000),
		},
	}
}

// The ratio is the median of the rounds' ratios, not the ratio of medians.
func TestRatioByRound(t *testing.T) {
	if x, ok := example().ratio("tcp-up-1", "rate", "ours-builtin", direct); !ok || x != 0.8 {
		t.Errorf("ratio to direct %v %v, want 0.8", x, ok)
	}
	if x, ok := example().ratio("tcp-up-1", "rate", "ours-builtin", "upstream-builtin"); !ok || x != 2 {
		t.Errorf("ratio to upstream %v %v, want 2", x, ok)
	}
	if _, ok := example().ratio("rr-1", "rate", "ours-builtin", direct); ok {
		t.Error("a ratio of what was not measured")
	}
}

func TestCommandLineNamesNoDirectory(t *testing.T) {
	args := []string{"--ours=/tmp/x/rootlesskit", "--output", "/srv/results", "--podman=/usr/libexec/podman/rootlessport", "--only=rr"}
	opts, err := parseFlags(args)
	if err != nil {
		t.Fatal(err)
	}
	const want = "go run ./bench --ours=rootlesskit --output results --podman=/usr/libexec/podman/rootlessport --only=rr"
	if got := commandLine(args, opts); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestMergeKeepsOtherRows(t *testing.T) {
	latest := Results{
		Runs: []Run{{Command: "go run ./bench --only=tcp-up-1 --targets=ours-builtin"}},
		Entries: []Entry{
			entry("tcp-up-1", "ours-builtin", 0, 12),
		},
	}
	merged := example().merge(latest)
	if len(merged.Runs) != 2 || len(merged.Entries) != 4 {
		t.Fatalf("%d runs, %d entries", len(merged.Runs), len(merged.Entries))
	}
	e := merged.find("tcp-up-1", "ours-builtin")
	if !slices.Equal(e.column("rate"), []float64{12}) || merged.Runs[e.Run].Command != latest.Runs[0].Command {
		t.Errorf("merged %+v of %+v", e, merged.Runs)
	}
	if _, ok := merged.ratio("tcp-up-1", "rate", "ours-builtin", direct); ok {
		t.Error("values of different runs were compared")
	}
}

// A base that was measured again goes on to be the base of its own run.
func TestMergeKeepsBases(t *testing.T) {
	again := Results{Runs: []Run{{Command: "again"}}, Entries: []Entry{entry("tcp-up-1", direct, 0, 1000)}}
	merged := example().merge(again).merge(again)
	if x, ok := merged.ratio("tcp-up-1", "rate", "ours-builtin", direct); !ok || x != 0.8 {
		t.Errorf("ratio to direct %v %v, want 0.8", x, ok)
	}
	if len(merged.Bases) != 1 || len(merged.Runs) != 2 {
		t.Errorf("%d bases, %d runs", len(merged.Bases), len(merged.Runs))
	}
}

func TestMergeForgetsWhatIsGone(t *testing.T) {
	old := example()
	old.Entries = append(old.Entries, entry("no-such-figure", direct, 0, 1), entry("rr-1", "no-such-target", 0, 1))
	failed := Entry{Figure: "rr-32", Target: direct}
	failed.add(sample{err: errors.New("it broke")}, "")
	old.Entries = append(old.Entries, failed)
	merged := old.merge(example())
	if len(merged.Runs) != 1 || len(merged.Entries) != len(example().Entries) {
		t.Errorf("%d runs, %d entries", len(merged.Runs), len(merged.Entries))
	}
}

func TestMarkdown(t *testing.T) {
	r := example()
	failed := Entry{Figure: "rr-1", Target: "ours-builtin"}
	failed.add(sample{err: errors.New("it broke")}, "none / builtin")
	r.Entries = append(r.Entries, failed)
	got := markdown(r)
	for _, want := range []string{
		"| figure | ours-builtin | upstream-builtin |\n",
		"| TCP to the namespace, 1 stream: Gbit/s | 0.80 | 0.40 |\n", // to direct
		"| TCP to the namespace, 1 stream: Gbit/s | 2.00 |\n",        // to upstream
		"| ours-builtin |  | 9 (8 to 10) | 1 |\n",
		"- ours-builtin, rr-1: 1 of 1 rounds failed: it broke\n",
		"1. `go run ./bench`",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("RESULTS.md lacks %q:\n%s", want, got)
		}
	}
}

func TestChartIsWellFormed(t *testing.T) {
	for _, r := range []Results{{}, example()} {
		for _, c := range charts {
			for d := xml.NewDecoder(strings.NewReader(c.draw(r))); ; {
				_, err := d.Token()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatalf("%s: %v", c.file, err)
				}
			}
		}
	}
	if bars := strings.Count(charts[0].draw(example()), `class="value"`); bars != 2 {
		t.Errorf("%d bars, want 2", bars)
	}
}

func TestBaseline(t *testing.T) {
	for _, c := range []struct{ target, want string }{
		{"ours-builtin", "upstream-builtin"}, {"ours-gvisor", "upstream-gvisor"}, {"upstream-gvisor", ""}, {direct, ""},
	} {
		i := slices.IndexFunc(allTargets, func(t Target) bool { return t.Name == c.target })
		if got := allTargets[i].baseline(); got != c.want {
			t.Errorf("%s is compared with %q, want %q", c.target, got, c.want)
		}
	}
	own := Target{Launcher: ours, Net: "slirp4netns", Ports: "new"}
	if got := own.baseline(); got != "upstream-builtin" {
		t.Errorf("a driver that upstream has not is compared with %q", got)
	}
}

func TestChoose(t *testing.T) {
	figures, _, err := options{only: "rr,tcp-up-1"}.selection()
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, f := range figures {
		ids = append(ids, f.ID)
	}
	if !slices.Equal(ids, []string{"tcp-up-1", "rr-1", "rr-32"}) {
		t.Errorf("chose %v", ids)
	}
	if _, _, err := (options{targets: "nonsense"}).selection(); err == nil || !strings.Contains(err.Error(), `"nonsense"`) {
		t.Errorf("an unknown target: %v", err)
	}
}
