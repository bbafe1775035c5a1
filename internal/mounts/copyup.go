package mounts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrTmp refuses to cover the directory that the state directory is in.
var ErrTmp = errors.New("/tmp cannot be copied up")

// CheckCopyUp judges the values of --copy-up before anything is done.
func CheckCopyUp(dirs []string) error {
	for _, dir := range dirs {
		if filepath.Clean(dir) == "/tmp" {
			return ErrTmp
		}
		if !filepath.IsAbs(dir) {
			return fmt.Errorf("copy-up of %q: the path must be absolute", dir)
		}
	}
	return nil
}

// CopyUp makes a directory writable: a tmpfs covers it, holding a symlink for
// each of its entries; they point into a bind mount of the original in the
// hidden directory .roN. The entries can then be replaced one by one.
func CopyUp(dir string) error {
	if err := copyUp(dir); err != nil {
		return fmt.Errorf("copy-up of %s: %w", dir, err)
	}
	return nil
}

func copyUp(dir string) error {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(real)
	if err != nil {
		return err
	}
	original, err := hold(real)
	if err != nil {
		return err
	}
	defer original.close()
	// nosuid and nodev are no loss: ids inside have no say over devices, and
	// the original's files keep their own mount's flags.
	if err := unix.Mount("tmpfs", real, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, "mode=0755"); err != nil {
		return fmt.Errorf("mounting a tmpfs: %w", err)
	}
	ro, err := os.MkdirTemp(real, ".ro")
	if err != nil {
		return err
	}
	if err := os.Chmod(ro, 0o755); err != nil { // other ids inside follow the links through it
		return err
	}
	if err := original.bindTo(ro); err != nil {
		return err
	}
	for _, e := range entries {
		link := filepath.Join(real, e.Name())
		if err := os.Symlink(filepath.Join(filepath.Base(ro), e.Name()), link); err != nil {
			return err
		}
	}
	return nil
}
