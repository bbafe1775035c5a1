package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

// output is the directory for the files that a run leaves.
type output struct{ dir string }

// newOutput fails before anything is measured in vain.
func newOutput(dir, moduleDir string) (output, error) {
	if dir == "" {
		dir = filepath.Join(moduleDir, "bench")
	}
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return output{}, fmt.Errorf("writing to %s: %w (--output=DIR takes another directory)", dir, err)
	}
	return output{dir}, nil
}

func (o output) path(name string) string { return filepath.Join(o.dir, name) }

// load reads the results so far, none where there is no file.
func (o output) load() (Results, error) {
	var r Results
	data, err := os.ReadFile(o.path("results.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("%s: %w (remove it to start anew)", o.path("results.json"), err)
	}
	return r, nil
}

func (o output) save(r Results) error {
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(o.path("results.json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	// make bench-kubernetes writes its part; see README.md.
	cluster, err := os.ReadFile(o.path("kubernetes.md"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(o.path("RESULTS.md"), append([]byte(markdown(r)), cluster...), 0o644); err != nil {
		return err
	}
	for _, c := range charts {
		if err := os.WriteFile(o.path(c.file), []byte(c.draw(r)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// table is rows of cells, the first of which are the heads.
type table [][]string

// cellFunc shows one metric of one target, "" where there is nothing.
type cellFunc func(Figure, Metric, Target) string

// grid has a row per figure and metric, and a column per target. Rows and
// columns without any value are left out.
func grid(targets []Target, cell cellFunc) table {
	var rows [][]string
	filled := make([]bool, len(targets))
	for _, f := range allFigures() {
		for _, m := range f.Metrics {
			row := []string{f.Title + ": " + m.label()}
			empty := true
			for i, t := range targets {
				c := cell(f, m, t)
				if c != "" {
					empty, filled[i] = false, true
				}
				row = append(row, c)
			}
			if !empty {
				rows = append(rows, row)
			}
		}
	}
	head := []string{"figure"}
	for _, t := range targets {
		head = append(head, t.Name)
	}
	return append(table{head}, rows...).columns(func(i int) bool { return i == 0 || filled[i-1] })
}

func (t table) columns(keep func(int) bool) table {
	kept := make(table, len(t))
	for i, row := range t {
		for j, c := range row {
			if keep(j) {
				kept[i] = append(kept[i], c)
			}
		}
	}
	return kept
}

func (t table) markdown() string {
	var b strings.Builder
	for i, row := range t {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			b.WriteString(strings.Repeat("|---", len(row)) + "|\n")
		}
	}
	return b.String()
}

func (t table) print(w io.Writer) {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, row := range t {
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	tw.Flush()
}

// summaryCell is the median and, in parentheses, its ratio to direct.
func (r Results) summaryCell(f Figure, m Metric, t Target) string {
	e := r.find(f.ID, t.Name)
	if e == nil {
		return ""
	}
	xs := e.column(m.Name)
	if len(xs) == 0 {
		return ""
	}
	c := m.number(median(xs))
	if ratio := r.directCell(f, m, t); ratio != "" {
		c += " (" + ratio + ")"
	}
	return c
}

func (r Results) directCell(f Figure, m Metric, t Target) string {
	return r.ratioCell(f, m, t, direct)
}

func (r Results) upstreamCell(f Figure, m Metric, t Target) string {
	return r.ratioCell(f, m, t, t.baseline())
}

func (r Results) ratioCell(f Figure, m Metric, t Target, base string) string {
	if m.Plain || t.Name == base {
		return ""
	}
	if x, ok := r.ratio(f.ID, m.Name, t.Name, base); ok {
		return fmt.Sprintf("%.2f", x)
	}
	return ""
}

// printSummary is what a run prints.
func printSummary(w io.Writer, r Results) {
	fmt.Fprintln(w, "\nMedians over the rounds (ratio to direct); ↓: lower is better")
	grid(allTargets, r.summaryCell).print(w)
	fmt.Fprintln(w, "\nRatio to the same drivers of upstream")
	grid(allTargets, r.upstreamCell).print(w)
	for _, line := range r.remarks() {
		fmt.Fprintln(w, line)
	}
}

// remarks are what failed or was not measured.
func (r Results) remarks() []string {
	var lines []string
	for _, run := range r.Runs {
		for _, s := range run.Skipped {
			lines = append(lines, "skipped "+s)
		}
	}
	for _, e := range r.Entries {
		if e.Error != "" {
			lines = append(lines, fmt.Sprintf("%s, %s: %d of %d rounds failed: %s",
				e.Target, e.Figure, e.failures(), len(e.Rounds), e.Error))
		}
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}

// markdown is RESULTS.md.
func markdown(r Results) string {
	var b strings.Builder
	b.WriteString("# Benchmark results\n\nWritten by `go run ./bench`; [README.md](README.md) says how it measures. ↓: lower is better.\n\n")
	for _, c := range charts {
		fmt.Fprintf(&b, "![%s](%s)\n\n", c.title, c.file)
	}
	b.WriteString("## Ratio to direct\n\nThe same load without any namespace is 1.\n\n" + grid(allTargets, r.directCell).markdown())
	b.WriteString("\n## Ratio to upstream\n\nThe same drivers of upstream are 1 (its builtin, where it has no such driver).\n\n" + grid(allTargets, r.upstreamCell).markdown())
	b.WriteString("\n## Values\n\nMedian over the rounds (minimum to maximum).\n")
	for _, f := range allFigures() {
		if t := r.figureTable(f); len(t) > 1 {
			fmt.Fprintf(&b, "\n### %s (`%s`)\n\n%s", f.Title, f.ID, t.markdown())
		}
	}
	b.WriteString("\n## Runs\n\n")
	for i, run := range r.Runs {
		fmt.Fprintf(&b, "%d. %s\n", i+1, run.markdown())
	}
	if remarks := r.remarks(); len(remarks) > 0 {
		b.WriteString("\n## Remarks\n\n- " + strings.Join(remarks, "\n- ") + "\n")
	}
	return b.String()
}

func (r Run) markdown() string {
	what := "`" + r.Command + "`, " + r.Date
	if r.Commit != "" {
		what += ", commit " + r.Commit
	}
	lines := []string{
		what,
		r.CPU + ", " + r.Memory + ", " + r.Kernel + ", " + r.Go,
		strings.Join(r.Helpers, "; "),
	}
	if r.Note != "" {
		lines = append(lines, r.Note)
	}
	return strings.Join(lines, "\n   ")
}

// figureTable has a row per target, with all values of one figure.
func (r Results) figureTable(f Figure) table {
	head := []string{"target", "network / port driver"}
	for _, m := range f.Metrics {
		head = append(head, m.label())
	}
	t := table{append(head, "run")}
	for _, target := range allTargets {
		e := r.find(f.ID, target.Name)
		if e == nil {
			continue
		}
		row := []string{target.Name, e.Driver}
		for _, m := range f.Metrics {
			row = append(row, spread(m, e.column(m.Name)))
		}
		t = append(t, append(row, fmt.Sprint(e.Run+1)))
	}
	return t
}

func spread(m Metric, xs []float64) string {
	if len(xs) == 0 {
		return "-"
	}
	mid := m.number(median(xs))
	low, high := m.number(slices.Min(xs)), m.number(slices.Max(xs))
	if low == high {
		return mid
	}
	return fmt.Sprintf("%s (%s to %s)", mid, low, high)
}
