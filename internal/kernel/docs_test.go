package kernel

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
)

// The page says what the features say, and what make test-kernels has found:
// go test ./internal/kernel -update writes both.
const (
	page   = "../../docs/kernels.md"
	matrix = "../../bin/kernels.md" // of make test-kernels
)

var update = flag.Bool("update", false, "rewrite docs/kernels.md")

func TestDocs(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		text = replaceSection(t, text, "features", featureTable())
		found, err := os.ReadFile(matrix)
		if err == nil {
			text = replaceSection(t, text, "matrix", string(found))
		} else if !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if err := os.WriteFile(page, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if section(t, text, "features") != featureTable() {
		t.Errorf("%s does not say of the features what features.go does: run this test with -update", page)
	}
	if found := section(t, text, "matrix"); found != "" { // not since the page was written
		checkMatrix(t, table(found))
	}
	checkDistributions(t, table(section(t, text, "distributions")))
}

// featureTable is in Markdown.
func featureTable() string {
	var b strings.Builder
	b.WriteString("| Feature | Linux | With it | Without |\n|---|---|---|---|\n")
	for _, f := range All() {
		since := f.Since
		if since == "" {
			since = "`" + strings.ReplaceAll(f.Modules, " ", "`, `") + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", f.Name, since, f.Gives, f.Without)
	}
	return b.String()
}

// checkMatrix holds the features that were found against the versions that they are
// said to be of, and has no check that fails. Its first row has the kernels.
func checkMatrix(t *testing.T, rows [][]string) {
	t.Helper()
	found := map[string][]string{}
	for _, row := range rows[1:] {
		found[row[0]] = row[1:]
	}
	native, isolated := atLeast(PidfdGetfd, NetnsCookie, Notifications), atLeast(PidfdGetfd, NetnsCookie, Notifications, LandlockTCP)
	for i, kernel := range rows[0][1:] {
		cell := func(name string) string {
			if len(found[name]) <= i {
				t.Fatalf("the matrix has no %s of %s", name, kernel)
			}
			return found[name][i]
		}
		for _, f := range All() {
			want := "yes"
			if f.Since != "" && older(kernel, f.Since) {
				want = "no"
			}
			if got := cell(f.Name); got != want && got != "not tried" && f.Since != "" {
				t.Errorf("%s of Linux %s: %s on %s", f.Name, f.Since, got, kernel)
			}
		}
		for name, has := range map[string]func(string) bool{"native ports": native, "native ports with `--disable-host-loopback`": isolated} {
			if got := cell(name); (got == "yes") != has(kernel) {
				t.Errorf("%s on %s: %s", name, kernel, got)
			}
		}
		if held, all, _ := strings.Cut(cell("checks that hold"), " of "); held != all || held == "0" {
			t.Errorf("%s: %s of %s checks hold", kernel, held, all)
		}
	}
}

// checkDistributions compares what the table says of native ports with the versions.
func checkDistributions(t *testing.T, rows [][]string) {
	t.Helper()
	native, isolated := atLeast(PidfdGetfd, NetnsCookie, Notifications), atLeast(PidfdGetfd, NetnsCookie, Notifications, LandlockTCP)
	for _, row := range rows[1:] {
		want := "relay"
		switch {
		case isolated(row[1]):
			want = "native"
		case native(row[1]):
			want = "native without `--disable-host-loopback`"
		}
		if row[2] != want {
			t.Errorf("%s with Linux %s: %q, want %q", row[0], row[1], row[2], want)
		}
	}
	if len(rows) < 9 {
		t.Errorf("%d distributions", len(rows)-1)
	}
}

// atLeast reports of a release whether it has all features by its version.
func atLeast(features ...*Feature) func(release string) bool {
	return func(release string) bool {
		for _, f := range features {
			if older(release, f.Since) {
				return false
			}
		}
		return true
	}
}

// table splits a table of Markdown into its cells, without the line below the first.
func table(text string) (rows [][]string) {
	for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
		if i == 1 {
			continue
		}
		var row []string
		for _, cell := range strings.Split(strings.Trim(line, "|"), "|") {
			row = append(row, strings.TrimSpace(cell))
		}
		rows = append(rows, row)
	}
	return rows
}

func marks(name string) (begin, end []byte) {
	return []byte("<!-- begin " + name + " -->\n"), []byte("<!-- end " + name + " -->\n")
}

func section(t *testing.T, text []byte, name string) string {
	t.Helper()
	begin, end := marks(name)
	_, rest, found := bytes.Cut(text, begin)
	inner, _, closed := bytes.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("%s has no section %s", page, name)
	}
	return string(inner)
}

func replaceSection(t *testing.T, text []byte, name, with string) []byte {
	t.Helper()
	begin, end := marks(name)
	old := section(t, text, name)
	whole := func(inner string) []byte { return bytes.Join([][]byte{begin, []byte(inner), end}, nil) }
	return bytes.Replace(text, whole(old), whole(with), 1)
}
