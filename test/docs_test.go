package test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// example is a command of a document, and what it is said to print.
type example struct {
	command string
	prints  []string
}

// notRun are the commands that the documents show and this test does not run, by how
// they begin, with what runs them instead.
var notRun = map[string]string{
	"make ":                   "CI itself, and TestBuildTags",
	"bin/rootlesskit ":        "TestBuildTags",
	"docker ":                 "make test-clients",
	"jq --arg ":               "make test-clients: it is for a container engine",
	"systemd-socket-activate": "TestPortOnActivationSocket: it waits for a connection",
}

// TestDocumentedSessions: what README and docs show in a terminal happens as shown, to
// the letter.
func TestDocumentedSessions(t *testing.T) {
	files, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, file := range append(files, "../README.md") {
		for i, session := range sessions(t, file) {
			var run []example
			for _, e := range session {
				if !isExcepted(e.command) {
					run = append(run, e)
				}
			}
			if len(run) == 0 {
				continue
			}
			ran += len(run)
			t.Run(fmt.Sprintf("%s/%d", filepath.Base(file), i+1), func(t *testing.T) { runSession(t, run) })
		}
	}
	if ran < 5 {
		t.Errorf("only %d commands were found", ran)
	}
}

func isExcepted(command string) bool {
	for prefix := range notRun {
		if strings.HasPrefix(command, prefix) {
			return true
		}
	}
	return false
}

// sessions finds the blocks of a document that show a terminal.
func sessions(t *testing.T, file string) (all [][]example) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?ms)^```console\n(.*?)^```").FindAllStringSubmatch(string(text), -1) {
		var session []example
		goesOn := false
		for line := range strings.Lines(m[1]) {
			line = strings.TrimRight(line, "\n ")
			command, is := strings.CutPrefix(line, "$ ")
			switch {
			case is:
				session = append(session, example{command: command})
			case goesOn:
				session[len(session)-1].command += "\n" + line
			default:
				e := &session[len(session)-1]
				e.prints = append(e.prints, line)
			}
			goesOn = (is || goesOn) && strings.HasSuffix(line, `\`)
		}
		all = append(all, session)
	}
	return all
}

// runSession types the commands into one shell, in a network of its own. A command in
// the background has the time that it needs before curl asks it.
func runSession(t *testing.T, session []example) {
	w := newWorld(t)
	tmp := t.TempDir()
	script := "exec 2>/dev/null\n"
	for i, e := range session {
		command := strings.ReplaceAll(e.command, "/tmp/", tmp+"/")
		if strings.HasPrefix(command, "curl ") {
			script += "until " + command + " --fail --silent >/dev/null; do sleep 0.05; done\n"
		}
		script += fmt.Sprintf("%s\necho '#%d'\n", command, i)
	}
	script += "kill $(jobs -p)\nwait\n"
	cmd := w.command(w.host, "timeout", "120", "bash", "-c", script)
	cmd.Env = append(os.Environ(), installed())
	r := runCmd(t, cmd)
	rest := r.stdout
	for i, e := range session {
		got, after, found := strings.Cut(rest, fmt.Sprintf("#%d\n", i))
		if !found {
			t.Fatalf("%s: it did not end (code %d, %s), and printed:\n%s", e.command, r.code, r.stderr, rest)
		}
		rest = after
		if want := strings.Join(e.prints, "\n"); untrailed(got) != want {
			t.Errorf("%s prints:\n%s\nand is said to:\n%s", e.command, untrailed(got), want)
		}
	}
}

// installed is the PATH of a user who has run make install.
func installed() string {
	return "PATH=" + filepath.Dir(bin("rootlesskit")) + ":" + os.Getenv("PATH")
}

// untrailed removes what is blank at the ends of lines.
func untrailed(s string) string {
	return strings.TrimSpace(regexp.MustCompile(` +\n`).ReplaceAllString(s, "\n"))
}

// TestManPageExamples: the examples of the man pages do what is said.
func TestManPageExamples(t *testing.T) {
	w := newWorld(t)
	k := newKit(t, "--net=gvisor-tap-vsock", "--port-driver=builtin", "sleep", "8642")
	w.launch(t, k)
	shell := func(command string) result {
		cmd := w.command(w.host, "bash", "-ec", command)
		cmd.Env = append(os.Environ(), installed(), "ROOTLESSKIT_STATE_DIR="+k.stateDir)
		return runCmd(t, cmd)
	}
	ran := 0
	for _, page := range []string{"rootlessctl.1", "rootlesskit.1"} {
		for _, command := range manExamples(t, filepath.Join("../docs/man", page)) {
			ran++
			if r := shell(strings.ReplaceAll(command, "/run/user/1000/myrun", k.stateDir)); r.code != 0 {
				t.Errorf("%s: %s: code %d: %s", page, command, r.code, r.stderr)
			}
			if strings.Contains(command, "add-ports") { // the next example publishes it again
				if r := shell("rootlessctl remove-ports $(rootlessctl list-ports --json | jq .id)"); r.code != 0 {
					t.Errorf("remove-ports: code %d: %s", r.code, r.stderr)
				}
			}
		}
	}
	if ran < 5 {
		t.Errorf("only %d examples were found", ran)
	}
}

// manExamples are the blocks that a man page shows as they are.
func manExamples(t *testing.T, file string) (all []string) {
	t.Helper()
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?ms)^\.nf\n(.*?)^\.fi`).FindAllStringSubmatch(string(page), -1) {
		all = append(all, strings.NewReplacer(`\-`, "-", `\e`, `\`, `\&`, "").Replace(m[1]))
	}
	return all
}
