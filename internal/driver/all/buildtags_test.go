package all_test

import (
	"bytes"
	"cmp"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"rootlesskit/api"
	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/all"
)

var update = flag.Bool("update", false, "rewrite testdata/linked.txt")

const program = "rootlesskit/cmd/rootlesskit"

// omitted is, for each build tag, the driver that it leaves out.
func omitted() map[string]driver.Known {
	tags := map[string]driver.Known{}
	for _, known := range all.Catalog() {
		if known.Tag != "" {
			tags[known.Tag] = known
		}
	}
	return tags
}

func allTags() []string {
	var tags []string
	for tag := range omitted() {
		tags = append(tags, tag)
	}
	slices.Sort(tags)
	return tags
}

// TestBuildTags builds the program with each tag alone, and with all: what was
// left out is not in help, and who asks for it is told why.
func TestBuildTags(t *testing.T) {
	for _, tags := range append(each(allTags()), allTags()) {
		t.Run(strings.Join(tags, ","), func(t *testing.T) {
			bin := build(t, tags)
			help := run(t, bin, "--help")
			for _, tag := range tags {
				checkOmitted(t, bin, help, omitted()[tag])
			}
			for tag, d := range omitted() {
				if d.Network && d.Retired == "" && !slices.Contains(tags, tag) && !listed(help, "--net", d.Name) {
					t.Errorf("--net=%s is missing in help", d.Name)
				}
			}
			if out := run(t, bin, "--version"); out != "rootlesskit version "+api.Version+", commit 0123abc\n" {
				t.Errorf("--version: %s", out)
			}
			logSize(t, bin)
		})
	}
}

// checkOmitted looks at a driver that was left out. Its flags are accepted
// nevertheless.
func checkOmitted(t *testing.T, bin, help string, d driver.Known) {
	t.Helper()
	if d.Retired != "" {
		return
	}
	var args []string
	for _, f := range d.Flags {
		args = append(args, "--"+f.Name+"="+cmp.Or(f.Default, "true"))
	}
	asked := d.Name
	if d.Network {
		args = append(args, "--net="+d.Name)
		if listed(help, "--net", d.Name) {
			t.Errorf("--net=%s was left out, and is in help", d.Name)
		}
	} else {
		args, asked = append(args, "--net=none"), ""
	}
	for _, name := range d.Ports {
		args = append(args, "--port-driver="+name)
		if listed(help, "--port-driver", name) {
			t.Errorf("--port-driver=%s was left out, and is in help", name)
		}
	}
	out := run(t, bin, append(args, "true")...)
	if !strings.Contains(out, asked+"\" was left out at build time: this binary has ") {
		t.Errorf("%v: %s", args, out)
	}
}

// listed reports whether a flag's help has the driver in its brackets, in which a line
// may end.
func listed(help, flag, driver string) bool {
	list := regexp.MustCompile(`(?s)\n *` + flag + ` .*?\[(.*?)\]`).FindStringSubmatch(help)
	return list != nil && slices.Contains(strings.Fields(strings.ReplaceAll(list[1], ",", " ")), driver)
}

// TestLinkedModules holds what the program is made of. A module that comes or
// goes is a decision: rewrite the file with -update.
func TestLinkedModules(t *testing.T) {
	var b strings.Builder
	for _, tags := range slices.Concat([][]string{nil}, each(allTags()), [][]string{allTags()}) {
		b.WriteString("tags: " + strings.Join(tags, ",") + "\n")
		for _, m := range linked(t, tags) {
			b.WriteString("\t" + m + "\n")
		}
	}
	file := filepath.Join("testdata", "linked.txt")
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := gocmp.Diff(string(want), b.String()); d != "" {
		t.Errorf("%s is not what is linked now: %s", file, d)
	}
}

// TestCommit: the shipped binaries name their commit.
func TestCommit(t *testing.T) {
	b, err := os.ReadFile("../../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), "-X "+commitVariable+"=$(COMMIT)") {
		t.Error("the Makefile does not tell the linker the commit")
	}
}

// commitVariable is set by the linker.
const commitVariable = "rootlesskit/api.commit"

// TestThirdParty: the list that is shipped has every module that is linked, with the
// text of its licence.
func TestThirdParty(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "../../../scripts/third-party", "go", shipped(t, "SHIP_TAGS"), program)
	cmd.Env = append(os.Environ(), "GOFLAGS=")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	list := string(out)
	for _, m := range append(linked(t, nil), "Go, its runtime") {
		_, rest, found := strings.Cut(list, "\n"+m+" ")
		if !found && !strings.HasPrefix(list, m) {
			t.Errorf("%s is not in the list", m)
		}
		_, rest, _ = strings.Cut(rest, "---\n\n") // the line below the heading
		text, _, _ := strings.Cut(rest, "\n-----")
		if found && !regexp.MustCompile("(?i)copyright|licen[cs]e").MatchString(text) {
			t.Errorf("%s is in the list without a licence", m)
		}
	}
}

// linked lists the third-party modules in the program.
func linked(t *testing.T, tags []string) []string {
	t.Helper()
	out := goCommand(t, "list", "-deps", "-tags", strings.Join(append(tags, shipped(t, "SHIP_TAGS")), ","),
		"-f", "{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}", program)
	modules := strings.Fields(out)
	slices.Sort(modules)
	return slices.Compact(modules)
}

// build builds the program as it is shipped.
func build(t *testing.T, tags []string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "rootlesskit")
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -X " + commitVariable + "=0123abc", "-tags=" + strings.Join(append(tags, shipped(t, "SHIP_TAGS")), ",")}
	goCommand(t, append(args, "-o", bin, program)...)
	return bin
}

// shipped is a variable of the Makefile about how the program is shipped.
func shipped(t *testing.T, variable string) string {
	t.Helper()
	b, err := os.ReadFile("../../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^` + variable + ` *:= *(.+)$`).FindSubmatch(b)
	if m == nil {
		t.Fatalf("no %s in the Makefile", variable)
	}
	return string(m[1])
}

func goCommand(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %v: %v\n%s", args, err, &stderr)
	}
	return string(out)
}

// run runs the program and returns all that it printed.
func run(t *testing.T, bin string, args ...string) string {
	t.Helper()
	out, _ := exec.CommandContext(t.Context(), bin, args...).CombinedOutput()
	return string(out)
}

// logSize reports what a tag saves; no size is too large.
func logSize(t *testing.T, file string) {
	t.Helper()
	st, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes", st.Size())
}

func each(tags []string) [][]string {
	var alone [][]string
	for _, tag := range tags {
		alone = append(alone, []string{tag})
	}
	return alone
}
