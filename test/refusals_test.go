package test

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"rootlesskit/internal/nstest"
)

// TestRefusals types the bad input of testdata/refusals.txt: each is refused with the
// line that stands there, and changes nothing.
func TestRefusals(t *testing.T) {
	text, err := os.ReadFile("testdata/refusals.txt")
	if err != nil {
		t.Fatal(err)
	}
	args := ""
	for line := range strings.Lines(string(text)) {
		want, is := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "\t")
		switch {
		case strings.HasPrefix(line, "#"):
		case !is:
			args = strings.TrimSpace(line)
		default:
			port := strings.NewReplacer("FREEPORT", strconv.Itoa(nstest.FreePort(t)))
			words, want := strings.Fields(port.Replace(args)), port.Replace(want)
			t.Run(args, func(t *testing.T) {
				t.Parallel()
				if got := firstWords(refused(t, words).stderr); got != want {
					t.Errorf("%s\nwant %s", got, want)
				}
			})
		}
	}
}

// refused runs rootlesskit with arguments that end it with code 1, and leave no file.
func refused(t *testing.T, args []string) result {
	t.Helper()
	tmp := shortTempDir(t)
	cmd := exec.CommandContext(t.Context(), bin("rootlesskit"), args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp, "XDG_RUNTIME_DIR="+tmp)
	r := runCmd(t, cmd)
	if r.code != 1 {
		t.Errorf("code %d, want 1", r.code)
	}
	if left, _ := os.ReadDir(tmp); len(left) > 0 {
		t.Errorf("left in the temporary directory: %v", left)
	}
	return r
}

// shortTempDir is a temporary directory without the test's name in it, since the path
// of a Unix socket has a limit.
func shortTempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kit")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// firstWords is the first line that is not of the log, without the tag of the parent.
func firstWords(stderr string) string {
	for line := range strings.Lines(stderr) {
		if !strings.Contains(line, "level=") {
			return strings.TrimPrefix(strings.TrimSuffix(line, "\n"), "[rootlesskit:parent] ")
		}
	}
	return ""
}
