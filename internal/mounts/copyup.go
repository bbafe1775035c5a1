package mounts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// scratch is where a copy-up is put together before it is moved into place: a
// directory that exists everywhere, and that for this reason cannot itself be
// copied up.
const scratch = "/tmp"

// CheckCopyUp judges the values of --copy-up before anything is done.
func CheckCopyUp(dirs []string) error {
	for _, dir := range dirs {
		clean := filepath.Clean(dir)
		if clean == scratch || clean == "/" || clean == "/proc" || clean == "/sys" {
			return fmt.Errorf("%s cannot be copied up", clean)
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

// copyUp builds the tmpfs over /tmp, which it covers meanwhile. Were it built
// in place, a recursive bind of the original would carry the tmpfs along.
func copyUp(dir string) error {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(real)
	if err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", scratch, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, "mode=0755"); err != nil {
		return fmt.Errorf("mounting a tmpfs: %w", err)
	}
	if err := fill(real, entries); err != nil {
		return errors.Join(err, unix.Unmount(scratch, unix.MNT_DETACH))
	}
	if err := unix.Mount(scratch, real, "", unix.MS_MOVE, ""); err != nil {
		return errors.Join(fmt.Errorf("moving the tmpfs into place: %w", err), unix.Unmount(scratch, unix.MNT_DETACH))
	}
	return nil
}

// fill puts the original and the links to its entries into the tmpfs.
func fill(original string, entries []os.DirEntry) error {
	ro, err := os.MkdirTemp(scratch, ".ro")
	if err != nil {
		return err
	}
	if err := os.Chmod(ro, 0o755); err != nil { // other ids inside follow the links through it
		return err
	}
	if err := Bind(original, ro); err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.Symlink(filepath.Join(filepath.Base(ro), e.Name()), filepath.Join(scratch, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
