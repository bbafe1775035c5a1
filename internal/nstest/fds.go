package nstest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// OpenFDs returns the open descriptors of the process, with their targets.
func OpenFDs() map[string]string {
	fds := map[string]string{}
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name()))
		if err != nil { // the descriptor of the directory itself is closed now
			continue
		}
		fds[e.Name()] = target
	}
	return fds
}

// LeakedFDs returns descriptors that were not open before, after waiting for those
// that are being closed.
func LeakedFDs(before map[string]string) []string {
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		leaked := NewFDs(before)
		if len(leaked) == 0 || time.Now().After(deadline) {
			return leaked
		}
	}
}

// NewFDs returns the descriptors that were not open before.
func NewFDs(before map[string]string) (opened []string) {
	for fd, target := range OpenFDs() {
		if before[fd] != target && !runtimeOwned(target) {
			opened = append(opened, fmt.Sprintf("%s -> %s", fd, target))
		}
	}
	return opened
}

// runtimeOwned reports whether Go's runtime has opened the descriptor for a moment.
func runtimeOwned(target string) bool {
	return target == "anon_inode:[pidfd]" || strings.HasPrefix(target, "/proc/")
}

// LimitFDs sets the soft limit of descriptors (RLIMIT_NOFILE) until restore is
// called or the test ends.
func LimitFDs(t testing.TB, limit int) (restore func()) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(limit), Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	restore = sync.OnceFunc(func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(restore)
	return restore
}
