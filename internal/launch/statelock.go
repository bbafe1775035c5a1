package launch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/procstate"
)

// The lock of a state directory is a flock on its file "lock", in which the holder
// writes its PID. A killed holder keeps the lock until the kernel has closed its
// descriptors, which takes some tenths of a second if a TAP device is among them.
// Its child keeps the same lock until it has killed everything it started, which
// may use files of the next run. A supervisor that restarts the launcher at once
// runs into this: so the launcher waits for the lock of a process that is ending,
// but not for that of a living one.

const (
	// Only a holder that is ending is waited for, so nothing is lost by patience. On a
	// busy machine the kernel takes seconds to take a network namespace down.
	lockPatience = time.Minute
	lockNotice   = 1 * time.Second
	lockInterval = 5 * time.Millisecond

	stateDirMode = 0o755
)

// errLocked says that another process holds the lock.
var errLocked = errors.New("locked")

// acquire locks the directory. A run that ends removes directory and lock, so
// this lock may belong to a directory that is gone; acquire then tries again.
func (s *stateDir) acquire(ctx context.Context, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	notice := time.AfterFunc(lockNotice, func() {
		log.Warn("waiting for another RootlessKit with the same state directory to end", "directory", s.path)
	})
	defer notice.Stop()
	for {
		err := s.tryAcquire()
		if err == nil {
			return nil
		}
		again := errors.Is(err, os.ErrNotExist) || errors.Is(err, errLocked) && (s.temporary || s.holderIsEnding())
		s.close()
		if errors.Is(err, errLocked) {
			err = fmt.Errorf("failed to lock %s, another RootlessKit is running with the same state directory?", s.file(lockName))
		}
		if !again {
			return err
		}
		select {
		case <-ctx.Done():
			if cause := context.Cause(ctx); !errors.Is(cause, context.DeadlineExceeded) {
				return cause
			}
			return err
		case <-time.After(lockInterval):
		}
	}
}

func (s *stateDir) tryAcquire() error {
	made, err := makeDir(s.path)
	if err != nil {
		return err // the error names the path
	}
	if err := s.open(); err != nil {
		return err
	}
	if made { // other users inside need access, whatever the umask is
		if err := s.dir.Chmod(stateDirMode); err != nil {
			return err
		}
	}
	if err := s.openLock(unix.O_CREAT); err != nil {
		return err
	}
	if err := s.tryLock(); err != nil {
		return err
	}
	if !s.lockIsCurrent() {
		return fmt.Errorf("failed to lock %s: %w", s.file(lockName), os.ErrNotExist)
	}
	if err := errors.Join(s.lock.Truncate(0), writePID(s.lock)); err != nil {
		return fmt.Errorf("writing to %s: %w", s.file(lockName), err)
	}
	return nil
}

// makeDir creates a directory and those above it, as far as they are missing.
func makeDir(path string) (made bool, err error) {
	if err := os.MkdirAll(filepath.Dir(path), stateDirMode); err != nil {
		return false, err
	}
	err = os.Mkdir(path, stateDirMode)
	if errors.Is(err, os.ErrExist) {
		return false, nil
	}
	return err == nil, err
}

func writePID(f *os.File) error {
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
	return err
}

// openLock opens the file without following a symlink, which might belong to
// anyone and lead anywhere.
func (s *stateDir) openLock(flags int) error {
	fd, err := unix.Openat(int(s.dir.Fd()), lockName, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC|flags, 0o600)
	switch {
	case errors.Is(err, unix.ELOOP):
		return fmt.Errorf("failed to lock %s: it is a symbolic link: remove it, or choose another --state-dir", s.file(lockName))
	case err != nil:
		return &os.PathError{Op: "open", Path: s.file(lockName), Err: err}
	}
	s.lock = os.NewFile(uintptr(fd), s.file(lockName))
	return nil
}

func (s *stateDir) tryLock() error {
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return errLocked
		}
		return fmt.Errorf("failed to lock %s: %w", s.file(lockName), err)
	}
	if err := unix.Flock(int(s.dir.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		return fmt.Errorf("failed to lock %s: %w", s.path, err)
	}
	return nil
}

// lockIsCurrent reports whether a run that starts now would use this lock.
func (s *stateDir) lockIsCurrent() bool {
	held, err := s.lock.Stat()
	if err != nil {
		return false
	}
	current, err := os.Lstat(s.file(lockName))
	return err == nil && os.SameFile(held, current)
}

// holderIsEnding reports whether the process that holds the lock has ended, or
// is about to. A lock that names no process belongs to another program.
func (s *stateDir) holderIsEnding() bool {
	var b [20]byte
	n, _ := s.lock.ReadAt(b[:], 0)
	pid, err := strconv.Atoi(string(b[:n]))
	return err == nil && pid > 0 && procstate.IsEnding(pid)
}
