package launch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// fileID identifies a file, whatever its path.
type fileID struct {
	Dev uint64 `json:"dev"`
	Ino uint64 `json:"ino"`
}

func idOf(f *os.File) (fileID, error) {
	info, err := f.Stat()
	if err != nil {
		return fileID{}, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}, fmt.Errorf("%s: the system gives no inode", f.Name())
	}
	return fileID{Dev: uint64(st.Dev), Ino: st.Ino}, nil
}

// childState is the state directory in the child: opened once, before copy-up
// hides its path, and known to be the parent's directory. The user's
// subordinate ids are mapped in the child, so it may remove files that the
// parent may not.
type childState struct {
	root *os.Root
	dir  *os.File
	// ours are the names that existed before the command.
	ours []string
}

func openChildState(path string, want fileID) (*childState, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("opening the state directory: %w", err)
	}
	dir, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the state directory: %w", err), root.Close())
	}
	s := &childState{root: root, dir: dir}
	switch got, err := idOf(dir); {
	case err != nil:
		return nil, errors.Join(err, s.close())
	case got != want:
		return nil, errors.Join(fmt.Errorf("the state directory %s has been replaced by another since the start", path), s.close())
	}
	return s, nil
}

// file returns a path that leads to the file, wherever the directory is now.
func (s *childState) file(name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", s.dir.Fd(), name)
}

// wipe removes what an earlier run left, but not the files that this run has
// already made.
func (s *childState) wipe() error {
	return removeAll(s.root, []string{lockName, netnsName})
}

// remember notes what is in the directory before the command starts.
func (s *childState) remember() (err error) {
	s.ours, err = namesIn(s.root)
	return err
}

// tidy removes what the command made in the directory. The parent does that too,
// as far as it may.
func (s *childState) tidy() error {
	if s.ours == nil {
		return nil
	}
	err := removeAll(s.root, s.ours)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the parent or the command was faster
	}
	return err
}

func (s *childState) close() error {
	return errors.Join(s.dir.Close(), s.root.Close())
}
