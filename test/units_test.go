package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSystemdUnits: systemd understands the units that we ship.
func TestSystemdUnits(t *testing.T) {
	for _, manager := range []string{"system", "user"} {
		files, err := filepath.Glob("../contrib/systemd/" + manager + "/*")
		if err != nil || len(files) != 2 {
			t.Fatal(files, err)
		}
		dir := t.TempDir()
		args := []string{"--" + manager, "--man=no", "verify"}
		for _, f := range files {
			unit, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			instance := filepath.Join(dir, strings.Replace(filepath.Base(f), "@", "@web", 1))
			installed := strings.ReplaceAll(string(unit), "@BINDIR@", filepath.Dir(bin("rootlesskit")))
			if err := os.WriteFile(instance, []byte(installed), 0o644); err != nil {
				t.Fatal(err)
			}
			args = append(args, instance)
		}
		if r := runCmd(t, exec.CommandContext(t.Context(), "systemd-analyze", args...)); r.code != 0 || r.stderr != "" {
			t.Errorf("%s: code %d: %s", manager, r.code, r.stderr)
		}
	}
}
