package launch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

// temporaryPrefix begins the name of a temporary state directory; a number
// follows.
const temporaryPrefix = "rootlesskit"

var temporaryName = regexp.MustCompile("^" + temporaryPrefix + "[0-9]+$")

// makeTemporaryDir creates a state directory in the first place that allows it,
// and removes those that killed runs left there.
func makeTemporaryDir() (string, error) {
	var tried []string
	for _, base := range temporaryBases() {
		path, err := os.MkdirTemp(base.dir, temporaryPrefix)
		if err == nil {
			removeStale(base.dir)
			return filepath.Abs(path)
		}
		var reason *os.PathError
		if errors.As(err, &reason) {
			err = reason.Err
		}
		tried = append(tried, fmt.Sprintf("%s (%s): %v", base.dir, base.name, err))
	}
	return "", fmt.Errorf("the state directory cannot be created: %s: choose one with --state-dir, or set TMPDIR", strings.Join(tried, ", "))
}

type temporaryBase struct{ name, dir string }

func temporaryBases() []temporaryBase {
	var bases []temporaryBase
	for _, name := range []string{"XDG_RUNTIME_DIR", "TMPDIR"} {
		if dir := os.Getenv(name); dir != "" {
			bases = append(bases, temporaryBase{"$" + name, dir})
		}
	}
	return append(bases, temporaryBase{"the default", "/tmp"})
}

// removeStale removes this user's temporary state directories of killed runs:
// their lock exists, and no process holds it.
func removeStale(base string) {
	entries, err := os.ReadDir(base)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() && temporaryName.MatchString(e.Name()) && ownedBySelf(e) {
			s := &stateDir{path: filepath.Join(base, e.Name())}
			if s.open() == nil && s.openLock(0) == nil && s.tryLock() == nil && s.lockIsCurrent() {
				_ = s.remove() // it does no harm if it cannot be removed
			}
			s.close()
		}
	}
}

func ownedBySelf(e os.DirEntry) bool {
	info, err := e.Info()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}
