package test

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const completions = "../contrib/completions"

// TestCompletions asks the shells themselves. The last word is completed.
func TestCompletions(t *testing.T) {
	for _, tt := range []struct {
		line string
		want string // one of the words offered
		not  string // none of them
	}{
		{"rootlesskit --detach-n", "--detach-netns", "--debug"},
		{"rootlesskit --net=gvi", "--net=gvisor-tap-vsock", "--net=none"},
		{"rootlesskit --net pas", "pasta", "none"},
		{"rootlesskit --pidns --propagation=rsl", "--propagation=rslave", "--propagation=slave"},
		{"rootlesskit --copy-up-mode=t", "--copy-up-mode=tmpfs+symlink", "--copy-up"},
		{"rootlesskit --net=none bas", "bash", "--debug"},
		{"rootlesskit --net none bas", "bash", "--debug"},
		{"rootlessctl li", "list-ports", "info"},
		{"rootlessctl list-ports --j", "--json", "--debug"},
		{"rootlessctl --debug in", "info", "list-ports"},
	} {
		program, _, _ := strings.Cut(tt.line, " ")
		for shell, complete := range map[string]func(*testing.T, string, string) []string{"bash": bashCompletes, "fish": fishCompletes} {
			got := complete(t, program, tt.line)
			if !slices.Contains(got, tt.want) || slices.Contains(got, tt.not) {
				t.Errorf("%s offers %q for %q, want %q and not %q", shell, got, tt.line, tt.want, tt.not)
			}
		}
	}
}

func TestCompletionsOfZshParse(t *testing.T) {
	files, err := filepath.Glob(completions + "/zsh/_*")
	if err != nil || len(files) != 3 { // one for each program that is on PATH
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		if r := runCmd(t, exec.CommandContext(t.Context(), "zsh", "-n", f)); r.code != 0 || r.stderr != "" {
			t.Errorf("%s: %s", f, r.stderr)
		}
	}
}

// bashCompletes splits the line as readline does, which takes "=" apart, and
// completes only what is behind it.
func bashCompletes(t *testing.T, program, line string) []string {
	t.Helper()
	words := strings.Fields(strings.ReplaceAll(line, "=", " = "))
	script := `program=$1; shift; . "$1"; shift
		COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); "_$program"; printf '%s\n' "${COMPREPLY[@]}"`
	args := append([]string{"--norc", "-c", script, "bash", program, filepath.Join(completions, "bash", program)}, words...)
	r := runCmd(t, exec.CommandContext(t.Context(), "bash", args...))
	offered := strings.Fields(r.stdout)
	if fields := strings.Fields(line); strings.Contains(fields[len(fields)-1], "=") {
		flag, _, _ := strings.Cut(fields[len(fields)-1], "=")
		for i := range offered {
			offered[i] = flag + "=" + offered[i]
		}
	}
	return offered
}

func fishCompletes(t *testing.T, program, line string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "fish", "--no-config", "-c", `source $argv[1]; complete -C $argv[2]`,
		filepath.Join(completions, "fish", program+".fish"), line)
	cmd.Env = append(cmd.Environ(), "HOME="+t.TempDir())
	var offered []string
	for _, l := range strings.Split(runCmd(t, cmd).stdout, "\n") {
		word, _, _ := strings.Cut(l, "\t")
		offered = append(offered, word)
	}
	return offered
}
