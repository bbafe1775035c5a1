package launch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// stateDir is the directory of a run. The flock on its file "lock" makes it
// the run's own; a shared flock on the directory itself tells cleaners of
// temporary files to leave it alone (systemd-tmpfiles(8), "flock").
type stateDir struct {
	path string
	dir  *os.File
	lock *os.File
}

const lockName = "lock"

// openStateDir makes the directory where it is missing, locks it and removes
// what a killed run left in it. An empty path makes a temporary directory.
func openStateDir(path string) (*stateDir, error) {
	tmp := ""
	if path == "" {
		var err error
		if tmp, err = os.MkdirTemp("", "rootlesskit"); err != nil {
			return nil, fmt.Errorf("making a temporary state directory: %w", err)
		}
		path = tmp
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("state directory %q: %w", path, err)
	}
	s := &stateDir{path: abs}
	_, statErr := os.Lstat(abs)
	made := tmp != "" || os.IsNotExist(statErr)
	if err := s.acquire(); err != nil {
		s.close()
		if made {
			_ = os.Remove(abs) // unless another run has it by now: then it is not empty
		}
		return nil, err
	}
	if err := s.wipe(); err != nil {
		s.close()
		return nil, fmt.Errorf("removing what an earlier run left in the state directory: %w", err)
	}
	return s, nil
}

// acquire locks the directory. A run that ends removes directory and lock, so
// the lock that was got may be that of a directory which is gone: try again.
func (s *stateDir) acquire() error {
	for {
		if err := os.MkdirAll(s.path, 0o755); err != nil {
			return err // names the path itself
		}
		err := s.tryLock()
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err == nil && s.lockIsCurrent() {
			return nil
		}
		s.close()
	}
}

func (s *stateDir) tryLock() (err error) {
	lockPath := filepath.Join(s.path, lockName)
	if s.lock, err = os.OpenFile(lockPath, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return err
	}
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("failed to lock %s, another RootlessKit is running with the same state directory?", lockPath)
		}
		return fmt.Errorf("failed to lock %s: %w", lockPath, err)
	}
	if s.dir, err = os.Open(s.path); err != nil {
		return err
	}
	if err := unix.Flock(int(s.dir.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		return fmt.Errorf("failed to lock %s: %w", s.path, err)
	}
	return nil
}

func (s *stateDir) lockIsCurrent() bool {
	held, err := s.lock.Stat()
	if err != nil {
		return false
	}
	current, err := os.Stat(filepath.Join(s.path, lockName))
	return err == nil && os.SameFile(held, current)
}

func (s *stateDir) wipe() error {
	entries, err := os.ReadDir(s.path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == lockName {
			continue
		}
		if err := os.RemoveAll(filepath.Join(s.path, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// file returns the path of a file in the directory.
func (s *stateDir) file(name string) string { return filepath.Join(s.path, name) }

// writeChildPID writes child_pid in one step, so that a reader never sees it
// half; clients parse it without trimming, so there is no newline.
func (s *stateDir) writeChildPID(pid int) error {
	tmp := s.file(".child_pid")
	if err := os.WriteFile(tmp, []byte(strconv.Itoa(pid)), 0o444); err != nil {
		return fmt.Errorf("writing child_pid: %w", err)
	}
	if err := os.Rename(tmp, s.file("child_pid")); err != nil {
		return fmt.Errorf("writing child_pid: %w", err)
	}
	return nil
}

// remove deletes the directory with all in it and gives the lock up. The lock
// goes last, so that nobody else works in the directory while it is emptied.
func (s *stateDir) remove() error {
	err := errors.Join(s.wipe(), os.RemoveAll(s.path))
	s.close()
	if err != nil {
		return fmt.Errorf("removing the state directory: %w", err)
	}
	return nil
}

func (s *stateDir) close() {
	if s.lock != nil {
		s.lock.Close()
	}
	if s.dir != nil {
		s.dir.Close()
	}
	s.lock, s.dir = nil, nil
}
