package ownthread

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// busy has all threads, the main one too, run goroutines.
func busy(stop <-chan struct{}) {
	for range 4 * runtime.GOMAXPROCS(0) {
		go func() {
			for {
				select {
				case <-stop:
					return
				default:
					runtime.Gosched()
				}
			}
		}()
	}
}

// TestNotTheMainThread: what is changed ends, and the process has its own table of
// descriptors afterwards.
func TestNotTheMainThread(t *testing.T) {
	stop := make(chan struct{})
	defer close(stop)
	busy(stop)
	for range 2000 {
		Run(func() {
			if unix.Gettid() == os.Getpid() {
				t.Error("the main thread was used")
			}
			if err := unix.Unshare(unix.CLONE_FILES); err != nil {
				t.Error(err)
			}
		})
	}
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()))
	if err != nil || !strings.HasPrefix(link, f.Name()) {
		t.Errorf("the main thread has %q as the file %s, %v", link, f.Name(), err)
	}
}
