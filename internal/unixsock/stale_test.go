package unixsock

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// leave makes the socket of a process that was killed.
func leave(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

func TestStaleSocketIsTakenOver(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s.sock")
	leave(t, path)
	l, err := Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("in the directory are %v", left)
	}
}

// TestOthersAreNotTakenOver: what is not a socket, or has somebody who listens, stays.
func TestOthersAreNotTakenOver(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	leave(t, target)
	for name, put := range map[string]func(path string) error{
		"a file":      func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"a directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"a symlink":   func(path string) error { return os.Symlink(target, path) },
		"a listener": func(path string) error {
			l, err := Listen(t.Context(), path)
			t.Cleanup(func() { l.Close() })
			return err
		},
		"datagrams": func(path string) error {
			l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
			t.Cleanup(func() { l.Close() })
			return err
		},
	} {
		path := filepath.Join(dir, name)
		if err := put(path); err != nil {
			t.Fatal(err)
		}
		before, _ := os.Lstat(path)
		if _, err := Listen(t.Context(), path); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("%s: %v", name, err)
		}
		if now, err := os.Lstat(path); err != nil || !os.SameFile(before, now) {
			t.Errorf("%s was replaced: %v", name, err)
		}
	}
}
