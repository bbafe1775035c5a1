package launch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestChildStateReplaced: the child takes no other directory for the run's own,
// and keeps the one that it has opened.
func TestChildStateReplaced(t *testing.T) {
	path, other := filepath.Join(t.TempDir(), "state"), t.TempDir()
	s := openState(t, path)
	defer s.close()
	if err := s.write("resolv.conf", []byte("ours"), 0o644); err != nil {
		t.Fatal(err)
	}
	child, err := openChildState(path, s.id)
	if err != nil {
		t.Fatal(err)
	}
	defer child.close()
	if err := os.WriteFile(filepath.Join(other, "resolv.conf"), []byte("theirs"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".aside"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(other, path); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(child.file("resolv.conf")); string(b) != "ours" {
		t.Errorf("the child mounts %q, %v", b, err)
	}
	if _, err := openChildState(path, s.id); err == nil || !strings.Contains(err.Error(), "replaced") {
		t.Errorf("a directory of others was opened: %v", err)
	}
}
