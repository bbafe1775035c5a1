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

// OpenFDs returns what the process has open: descriptor to its target.
func OpenFDs() map[string]string {
	fds := map[string]string{}
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name()))
		if err != nil { // the directory's own descriptor is gone by now
			continue
		}
		fds[e.Name()] = target
	}
	return fds
}

// LeakedFDs lists descriptors that were not open before, after giving those
// that are being closed a moment.
func LeakedFDs(before map[string]string) []string {
	var leaked []string
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		leaked = leaked[:0]
		for fd, target := range OpenFDs() {
			if before[fd] != target && !runtimeOwned(target) {
				leaked = append(leaked, fmt.Sprintf("%s -> %s", fd, target))
			}
		}
		if len(leaked) == 0 || time.Now().After(deadline) {
			return leaked
		}
	}
}

// runtimeOwned tells the descriptors that Go's runtime opens for a moment.
func runtimeOwned(target string) bool {
	return target == "anon_inode:[pidfd]" || strings.HasPrefix(target, "/proc/")
}

// LimitFDs sets the soft limit of descriptors (RLIMIT_NOFILE) until restore is
// called, or the test has ended.
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
