package launch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTemporaryPlaces: the first place that can be written to is taken; where
// there is none, the error names each with the reason.
func TestTemporaryPlaces(t *testing.T) {
	missing, good := filepath.Join(t.TempDir(), "missing"), t.TempDir()
	for _, c := range []struct{ runtime, tmp, want string }{
		{good, missing, good},
		{missing, good, good},
		{"", good, good},
		{missing, missing, "/tmp"},
	} {
		t.Setenv("XDG_RUNTIME_DIR", c.runtime)
		t.Setenv("TMPDIR", c.tmp)
		s := openState(t, "")
		if filepath.Dir(s.path) != c.want {
			t.Errorf("%+v: %s", c, s.path)
		}
		if err := s.remove(); err != nil {
			t.Error(err)
		}
	}
}

// TestStaleTemporaryDirs: the next run removes what killed ones left, and
// nothing else.
func TestStaleTemporaryDirs(t *testing.T) {
	base := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", base)
	make := func(name string, files ...string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(base, name), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if err := os.WriteFile(filepath.Join(base, name, f), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	make("rootlesskit1", lockName, "child_pid") // killed
	make("rootlesskit2", "child_pid")           // no lock: not a run's
	make("rootlesskit-mine", lockName)          // another name
	make("rootlesskit3", "child_pid")
	if err := os.Symlink(filepath.Join(base, "rootlesskit-mine", lockName), filepath.Join(base, "rootlesskit3", lockName)); err != nil {
		t.Fatal(err)
	}
	live := openState(t, "")
	defer func() { _ = live.remove() }()
	s := openState(t, "")
	defer func() { _ = s.remove() }()
	entries, err := os.ReadDir(base)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	for _, name := range []string{"rootlesskit2", "rootlesskit3", "rootlesskit-mine", filepath.Base(live.path), filepath.Base(s.path)} {
		if !strings.Contains(strings.Join(left, " ")+" ", name+" ") {
			t.Errorf("%s was removed", name)
		}
	}
	if len(left) != 5 {
		t.Errorf("left: %v", left)
	}
}
