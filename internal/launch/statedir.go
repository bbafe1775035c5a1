package launch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/unixsock"
)

// stateDir is the directory of a run. The flock on its file "lock" reserves it
// for the run; a shared flock on the directory itself tells cleaners of
// temporary files to leave it alone (systemd-tmpfiles(8), "flock").
//
// A user who may write to the parent directory can replace it with another
// directory, or a symlink, during the run. So files are created and removed
// through the directory that was opened at the start (root), never by path.
type stateDir struct {
	path string
	// temporary says that this run chose the path, so no other run uses it.
	temporary bool
	// leftovers says that the directory has files of an earlier run that only the
	// child may remove: files owned by the user's subordinate ids.
	leftovers bool
	id        fileID
	root      *os.Root
	dir       *os.File // root's own descriptor, for flock and /proc/self/fd
	lock      *os.File
}

const (
	lockName = "lock"
	// netnsName is where --detach-netns binds the network namespace.
	netnsName = "netns"
)

// openStateDir creates the directory if it is missing, locks it and removes
// what a killed run left in it. For an empty path it creates a temporary
// directory. The context ends the wait for a lock whose holder is ending.
func openStateDir(ctx context.Context, path string, log *slog.Logger) (*stateDir, error) {
	s, err := newStateDir(path)
	if err != nil {
		return nil, err
	}
	_, statErr := os.Lstat(s.path)
	made := s.temporary || os.IsNotExist(statErr)
	if err := s.acquire(ctx, log); err != nil {
		s.close()
		if made {
			_ = unix.Rmdir(s.path) // fails if another run has it by now, since it is not empty then
		}
		return nil, err
	}
	err = s.wipe()
	s.leftovers = errors.Is(err, os.ErrPermission)
	if err != nil && !s.leftovers {
		s.close()
		return nil, fmt.Errorf("%s: %w", wipeFailed, err)
	}
	return s, nil
}

const wipeFailed = "removing what an earlier run left in the state directory"

func newStateDir(path string) (*stateDir, error) {
	if path == "" {
		tmp, err := makeTemporaryDir()
		return &stateDir{path: tmp, temporary: true}, err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("state directory %q: %w", path, err)
	}
	return &stateDir{path: abs}, nil
}

// open opens the directory. It refuses a directory with files that no run of
// this program can have left, since everything in it will be removed.
func (s *stateDir) open() (err error) {
	if s.root, err = os.OpenRoot(s.path); err != nil {
		return err
	}
	if s.dir, err = s.root.Open("."); err != nil {
		return err
	}
	if s.id, err = idOf(s.dir); err != nil {
		return err
	}
	names, err := namesIn(s.root)
	if err != nil {
		return err
	}
	if len(names) > 0 && !slices.Contains(names, lockName) {
		return fmt.Errorf("the state directory %s is not empty, and no RootlessKit has used it (in it: %s): empty it, or choose another with --state-dir",
			s.path, someOf(names))
	}
	return nil
}

// someOf lists names, but only the first few if there are many.
func someOf(names []string) string {
	const most = 5
	slices.Sort(names)
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// wipe empties the directory, except for the lock.
func (s *stateDir) wipe() error { return removeAll(s.root, []string{lockName}) }

func namesIn(dir *os.Root) ([]string, error) {
	d, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// removeAll empties a directory, except for the entries to keep.
func removeAll(dir *os.Root, keep []string) error {
	names, err := namesIn(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !slices.Contains(keep, name) {
			err = errors.Join(err, dir.RemoveAll(name))
		}
	}
	return err
}

// file returns the path of a file in the directory, for use by others.
func (s *stateDir) file(name string) string { return filepath.Join(s.path, name) }

// write creates a file with this mode, whatever the umask is.
func (s *stateDir) write(name string, content []byte, mode os.FileMode) error {
	f, err := s.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Chmod(mode), f.Close())
}

// listen creates a Unix socket in the directory.
func (s *stateDir) listen(ctx context.Context, name string) (net.Listener, error) {
	return unixsock.ListenIn(ctx, s.dir, s.file(name))
}

// writeChildPID writes child_pid atomically, so that a reader never sees a part
// of it. There is no newline, since clients parse it without trimming.
func (s *stateDir) writeChildPID(pid int) error {
	const tmp = ".child_pid"
	if err := s.write(tmp, []byte(strconv.Itoa(pid)), 0o444); err != nil {
		return fmt.Errorf("writing child_pid: %w", err)
	}
	if err := s.root.Rename(tmp, "child_pid"); err != nil {
		return fmt.Errorf("writing child_pid: %w", err)
	}
	return nil
}

// remove deletes the directory with its contents and releases the lock. It does
// that last, so that no other run uses the directory meanwhile. If something
// else is at the directory's path, it stays.
func (s *stateDir) remove() error {
	defer s.close()
	err := s.wipe()
	if err == nil {
		err = s.root.Remove(lockName)
	}
	if err == nil && s.isAtPath() {
		err = unix.Rmdir(s.path)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing the state directory %s: %w", s.path, err)
	}
	return nil
}

// isAtPath reports whether the path still leads to the directory itself,
// without a symlink.
func (s *stateDir) isAtPath() bool {
	held, err := s.dir.Stat()
	if err != nil {
		return false
	}
	current, err := os.Lstat(s.path)
	return err == nil && os.SameFile(held, current)
}

func (s *stateDir) close() {
	for _, f := range []*os.File{s.lock, s.dir} {
		if f != nil {
			f.Close()
		}
	}
	if s.root != nil {
		s.root.Close()
	}
	s.lock, s.dir, s.root = nil, nil, nil
}
