package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestOuterStateDir: of a run within another, the command and the child know the inner
// state directory alone.
func TestOuterStateDir(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	cmd := exec.CommandContext(t.Context(), bin("rootlesskit"), "--state-dir="+state, "sh", "-c", "exec cat /proc/$PPID/environ /proc/self/environ")
	cmd.Env = append(os.Environ(), "ROOTLESSKIT_STATE_DIR=/outer", "ROOTLESSKIT_PARENT_EUID=4", "ROOTLESSKIT_PARENT_EGID=4")
	r := runCmd(t, cmd)
	for _, name := range []string{"ROOTLESSKIT_STATE_DIR", "ROOTLESSKIT_PARENT_EUID", "ROOTLESSKIT_PARENT_EGID"} {
		var values []string
		for v := range strings.SplitSeq(r.stdout, "\x00") {
			if value, ok := strings.CutPrefix(v, name+"="); ok {
				values = append(values, value)
			}
		}
		if len(values) != 2 || values[0] != values[1] || values[0] == "/outer" || values[0] == "4" {
			t.Errorf("%s is %q in the child and the command", name, values)
		}
	}
}

// TestAPIBeforeCommand: api.sock is there when the command starts. In twenty runs one
// that comes later is missed at least once.
func TestAPIBeforeCommand(t *testing.T) {
	for range 20 {
		if r := runKit(t, "sh", "-c", "test -S $ROOTLESSKIT_STATE_DIR/api.sock"); r.code != 0 {
			t.Fatalf("the command started before the API: code %d: %s", r.code, r.stderr)
		}
	}
}
