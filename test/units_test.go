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

// TestAppArmorProfiles: this system's parser understands the profile that is made for
// its version.
func TestAppArmorProfiles(t *testing.T) {
	version := runCmd(t, exec.CommandContext(t.Context(), "apparmor_parser", "--version"))
	for of, file := range map[string]string{"version 3.": "3.0", "version 4.": "4.0", "version 5.": "4.0"} {
		if !strings.Contains(version.stdout, of) {
			continue
		}
		text, err := os.ReadFile("../contrib/apparmor/" + file + "/rootlesskit")
		if err != nil {
			t.Fatal(err)
		}
		profile := filepath.Join(t.TempDir(), "rootlesskit")
		if err := os.WriteFile(profile, []byte(strings.ReplaceAll(string(text), "@BINDIR@", "/usr/local/bin")), 0o644); err != nil {
			t.Fatal(err)
		}
		r := runCmd(t, exec.CommandContext(t.Context(), "apparmor_parser", "--skip-kernel-load", "--skip-cache", "--names", profile))
		if r.code != 0 || !strings.Contains(r.stdout, "rootlesskit") {
			t.Errorf("code %d: %s%s", r.code, r.stdout, r.stderr)
		}
		return
	}
	t.Errorf("apparmor_parser --version: code %d: %s%s", version.code, version.stdout, version.stderr)
}
