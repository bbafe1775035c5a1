package launch

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func openState(t *testing.T, path string) *stateDir {
	t.Helper()
	s, err := tryOpenState(t, path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tryOpenState(t *testing.T, path string) (*stateDir, error) {
	t.Helper()
	return openStateDir(t.Context(), path, slog.New(slog.DiscardHandler))
}

func TestStateDirLife(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	for _, path := range []string{"", filepath.Join(t.TempDir(), "a", "b")} {
		s := openState(t, path)
		if !filepath.IsAbs(s.path) {
			t.Errorf("the path is %q", s.path)
		}
		if _, err := tryOpenState(t, s.path); err == nil || !strings.Contains(err.Error(), "another RootlessKit is running") {
			t.Errorf("it can be opened twice: %v", err)
		}
		if !lockedShared(t, s.path) {
			t.Error("nothing tells cleaners of temporary files to leave it")
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

// lockedShared reports whether others have a directory locked, as systemd-tmpfiles
// asks.
func lockedShared(t *testing.T, dir string) bool {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	exclusive := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	shared := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	return exclusive == unix.EWOULDBLOCK && shared == nil
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
	foreign := t.TempDir()
	for _, name := range strings.Split("gfedcba", "") {
		if err := os.Mkdir(filepath.Join(foreign, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	linked := t.TempDir()
	if err := os.Symlink("missing/lock", filepath.Join(linked, lockName)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		readOnly:                         "ro/lock: permission denied",
		foreign:                          "is not empty, and no RootlessKit has used it (in it: a, b, c, d, e and 2 more): empty it, or choose another with --state-dir",
		linked:                           "lock: it is a symbolic link: remove it, or choose another --state-dir",
		filepath.Join(readOnly, "state"): "ro/state: permission denied",
		file:                             "file: not a directory",
		filepath.Join(t.TempDir(), strings.Repeat("x", 300)): "file name too long",
	} {
		if _, err := tryOpenState(t, path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestForeignStateDir: what no run has left is not touched.
func TestForeignStateDir(t *testing.T) {
	dir := t.TempDir()
	precious := filepath.Join(dir, "precious")
	if err := os.WriteFile(precious, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if s, err := tryOpenState(t, dir); err == nil {
		s.close()
		t.Error("a directory with somebody's file in it was taken")
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 || names[0].Name() != "precious" {
		t.Errorf("in it now: %v, %v", names, err)
	}
}

// TestStateDirReplaced: where something else has taken the directory's place,
// a run that ends removes its own files and leaves the other's.
func TestStateDirReplaced(t *testing.T) {
	for name, replace := range map[string]func(victim, path string) error{
		"symlink":   func(victim, path string) error { return os.Symlink(victim, path) },
		"directory": func(victim, path string) error { return os.Rename(victim, path) },
	} {
		t.Run(name, func(t *testing.T) {
			path, aside, victim := filepath.Join(t.TempDir(), "state"), filepath.Join(t.TempDir(), "aside"), filepath.Join(t.TempDir(), "victim")
			for _, dir := range []string{victim, filepath.Join(victim, "sub")} {
				if err := os.Mkdir(dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			s := openState(t, path)
			if err := os.Rename(path, aside); err != nil {
				t.Fatal(err)
			}
			if err := replace(victim, path); err != nil {
				t.Fatal(err)
			}
			if err := s.writeChildPID(42); err != nil {
				t.Error(err)
			}
			l, err := s.listen(t.Context(), "api.sock")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if names, err := os.ReadDir(aside); err != nil || len(names) != 3 {
				t.Errorf("the run's own directory holds %v, %v", names, err)
			}
			if err := s.remove(); err != nil {
				t.Error(err)
			}
			if names, err := os.ReadDir(path); err != nil || len(names) != 1 || names[0].Name() != "sub" {
				t.Errorf("the other's directory holds %v, %v", names, err)
			}
			if names, err := os.ReadDir(aside); err != nil || len(names) != 0 {
				t.Errorf("the run's own directory holds %v, %v after the end", names, err)
			}
		})
	}
}

// TestStateDirLink: a symlink to a directory is followed, and stays.
func TestStateDirLink(t *testing.T) {
	link, dir := filepath.Join(t.TempDir(), "link"), t.TempDir()
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	s := openState(t, link)
	if err := s.writeChildPID(42); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "child_pid")); err != nil {
		t.Error(err)
	}
	if err := s.remove(); err != nil {
		t.Error(err)
	}
	if names, err := os.ReadDir(link); err != nil || len(names) != 0 {
		t.Errorf("it holds %v, %v", names, err)
	}
}

// TestStateDirUmask: the files are for the command to read.
func TestStateDirUmask(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	s := openState(t, filepath.Join(t.TempDir(), "state"))
	defer s.close()
	if err := s.write("resolv.conf", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(s.file("resolv.conf")); err != nil || st.Mode() != 0o644 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}
