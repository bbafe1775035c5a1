package launch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func openState(t *testing.T, path string) *stateDir {
	t.Helper()
	s, err := openStateDir(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStateDirLife(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	for _, path := range []string{"", filepath.Join(t.TempDir(), "a", "b")} {
		s := openState(t, path)
		if !filepath.IsAbs(s.path) {
			t.Errorf("the path is %q", s.path)
		}
		if _, err := openStateDir(s.path); err == nil || !strings.Contains(err.Error(), "another RootlessKit is running") {
			t.Errorf("it can be opened twice: %v", err)
		}
		if err := s.writeChildPID(42); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(s.file("child_pid")); string(b) != "42" || err != nil {
			t.Errorf("child_pid holds %q, %v", b, err)
		}
		if err := s.remove(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(s.path); !os.IsNotExist(err) {
			t.Errorf("it is left: %v", err)
		}
	}
}

// TestStaleStateDir: what a killed run left goes, and what follows symlinks
// stays.
func TestStaleStateDir(t *testing.T) {
	dir, outside := t.TempDir(), filepath.Join(t.TempDir(), "outside")
	for _, path := range []string{filepath.Join(dir, "child_pid"), filepath.Join(dir, "lock"), outside} {
		if err := os.WriteFile(path, []byte("1"), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "lock"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "sub", "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	s := openState(t, dir)
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != lockName {
		t.Errorf("in it: %v, %v", entries, err)
	}
	if err := s.remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(outside); err != nil {
		t.Error(err)
	}
}

func TestStateDirErrors(t *testing.T) {
	readOnly := filepath.Join(t.TempDir(), "ro")
	if err := os.Mkdir(readOnly, 0o555); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		readOnly:                         "ro/lock: permission denied",
		filepath.Join(readOnly, "state"): "ro/state: permission denied",
		file:                             "file: not a directory",
		strings.Repeat("x", 300):         "file name too long",
	} {
		if _, err := openStateDir(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
