package mounts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// CheckCopyUp checks the values of --copy-up before anything is done.
func CheckCopyUp(dirs []string) error {
	for _, dir := range dirs {
		clean := filepath.Clean(dir)
		if clean == "/tmp" || clean == "/" || clean == "/proc" || clean == "/sys" {
			return fmt.Errorf("%s cannot be copied up", clean)
		}
		if !filepath.IsAbs(dir) {
			return fmt.Errorf("copy-up of %q: the path must be absolute", dir)
		}
	}
	return nil
}

// CopyUp makes a directory writable: it covers the directory with a tmpfs that
// has a symlink for each entry. The symlinks point into a bind mount of the
// original in the hidden directory .roN. The entries can then be replaced one
// by one.
//
// Symlinks are the exception. The original is one level deeper in .roN, where a
// relative symlink that leads out of the directory would lead elsewhere. So each
// symlink at the top is copied, and a directory that contains, at any depth, a
// symlink that leads out becomes a directory in the tmpfs as well, with links to
// its entries.
func CopyUp(dir string) error {
	if err := copyUp(dir); err != nil {
		return fmt.Errorf("copy-up of %s: %w", dir, err)
	}
	return nil
}

// copyUp builds the tmpfs at another place, which it covers in the meantime. If
// it were built in place, a recursive bind of the original would include the
// tmpfs.
func copyUp(dir string) error {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	if _, err := os.ReadDir(real); err != nil {
		return err
	}
	original, err := hold(real)
	if err != nil {
		return err
	}
	defer original.close()
	at, err := scratchFor(real)
	if err != nil {
		return err
	}
	leaving := leavingDirs(real)
	if err := unix.Mount("tmpfs", at, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mounting a tmpfs: %w", err)
	}
	if err := fill(original, at, leaving); err != nil {
		return errors.Join(err, unix.Unmount(at, unix.MNT_DETACH))
	}
	if err := original.cover(at); err != nil {
		return errors.Join(fmt.Errorf("moving the tmpfs into place: %w", err), unix.Unmount(at, unix.MNT_DETACH))
	}
	return nil
}

// scratchFor finds a directory to build in that is unrelated to the given one.
func scratchFor(dir string) (string, error) {
	for _, at := range []string{"/tmp", "/mnt", "/usr", "/var", "/opt"} {
		st, err := os.Lstat(at)
		if err == nil && st.IsDir() && !within(at, dir) && !within(dir, at) {
			return at, nil
		}
	}
	return "", errors.New("no directory to build in: one of /tmp, /mnt, /usr must exist")
}

// within reports whether a path is the directory or below it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// fill puts the original and the links to its entries into the tmpfs.
func fill(original held, at string, leaving map[string]bool) error {
	ro, err := os.MkdirTemp(at, ".ro")
	if err != nil {
		return err
	}
	if err := os.Chmod(ro, 0o755); err != nil { // users with other ids follow the links through it
		return err
	}
	if err := original.bindTo(ro); err != nil {
		return err
	}
	return fillDir(ro, at, ".", leaving)
}

// fillDir makes the entries of one directory of the original, named by its relative path.
func fillDir(ro, at, dir string, leaving map[string]bool) error {
	entries, err := os.ReadDir(filepath.Join(ro, dir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch {
		case e.Type()&os.ModeSymlink != 0:
			err = copyLink(filepath.Join(ro, path), filepath.Join(at, path))
		case leaving[path]:
			if err = copyDir(filepath.Join(ro, path), filepath.Join(at, path)); err == nil {
				err = fillDir(ro, at, path, leaving)
			}
		default:
			up := strings.Repeat("../", strings.Count(path, "/"))
			err = os.Symlink(up+filepath.Join(filepath.Base(ro), path), filepath.Join(at, path))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func copyLink(from, to string) error {
	target, err := os.Readlink(from)
	if err != nil {
		return err
	}
	return os.Symlink(target, to)
}

// copyDir makes an empty directory like another. It cannot keep an owner who is
// not mapped here.
func copyDir(from, to string) error {
	st, err := os.Stat(from)
	if err != nil {
		return err
	}
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		_ = os.Chown(to, int(sys.Uid), int(sys.Gid))
	}
	return os.Chmod(to, st.Mode().Perm())
}

// maxScanned bounds the search for symlinks, since trees such as /var/lib may
// have millions of files. Symlinks beyond the bound are treated as if they did
// not lead out.
const maxScanned = 50_000

// leavingDirs returns the relative paths of the directories that have a
// relative symlink leading out of the given directory, and of the directories
// above them.
func leavingDirs(root string) map[string]bool {
	leaving, scanned := map[string]bool{}, 0
	_ = filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if scanned++; scanned > maxScanned {
			return filepath.SkipAll
		}
		if err != nil || e.Type()&os.ModeSymlink == 0 {
			return nil // no one can use the entries of a directory that cannot be read
		}
		target, err := os.Readlink(path)
		if err != nil || filepath.IsAbs(target) || within(filepath.Join(filepath.Dir(path), target), root) {
			return nil
		}
		below, _ := filepath.Rel(root, filepath.Dir(path))
		for ; below != "."; below = filepath.Dir(below) {
			leaving[below] = true
		}
		return nil
	})
	return leaving
}
