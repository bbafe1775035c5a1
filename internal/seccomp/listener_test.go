package seccomp

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The main thread, which does not end with its goroutine, has no filter.
func init() { runtime.LockOSThread() }

// filtered is a thread with a filter, which binds when it is told to and ends with
// the channel.
type filtered struct {
	*Listener
	bind   chan struct{}
	result chan error
}

func newFiltered(t *testing.T) *filtered {
	t.Helper()
	needsNotifications(t)
	f := &filtered{bind: make(chan struct{}), result: make(chan error, 1)}
	listener := make(chan int, 1)
	go func() {
		runtime.LockOSThread() // it ends with the goroutine
		fd, err := -1, unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		if err == nil {
			fd, err = Install(Policy{})
		}
		listener <- fd
		f.result <- err
		for range f.bind {
			s, _ := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			f.result <- unix.Bind(s, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
			unix.Close(s)
		}
	}()
	fd := <-listener
	if err := <-f.result; err != nil {
		t.Fatal(err)
	}
	l, err := NewListener(fd)
	if err != nil {
		t.Fatal(err)
	}
	f.Listener = l
	return f
}

// receive calls Receive until it fails, and returns what it failed with.
func (f *filtered) receive(answer func(Call)) <-chan error {
	ended := make(chan error, 1)
	go func() {
		for {
			c, err := f.Receive()
			if err != nil {
				ended <- err
				return
			}
			answer(c)
		}
	}()
	return ended
}

// awaitReceiver waits until Receive is in the kernel.
func (f *filtered) awaitReceiver(t *testing.T) {
	t.Helper()
	ioctl := fmt.Sprintf("%d ", unix.SYS_IOCTL)
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		f.mu.Lock()
		receiver := f.receiver
		f.mu.Unlock()
		call, _ := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/syscall", receiver))
		if strings.HasPrefix(string(call), ioctl) {
			return
		}
	}
	t.Fatal("nobody waits for a call within a minute")
}

func awaitEnd(t *testing.T, ended <-chan error) {
	t.Helper()
	select {
	case err := <-ended:
		if !errors.Is(err, ErrEnded) {
			t.Errorf("Receive failed: %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("Receive does not end within a minute")
	}
}

func TestReceiveEndsWithStop(t *testing.T) {
	f := newFiltered(t)
	defer close(f.bind)
	ended := f.receive(Call.Continue)
	f.bind <- struct{}{}
	if err := <-f.result; err != nil {
		t.Error(err)
	}
	f.awaitReceiver(t)
	f.Stop()
	awaitEnd(t, ended)
	f.Close()
}

func TestReceiveEndsWithTheProcesses(t *testing.T) {
	f := newFiltered(t)
	defer f.Close()
	ended := f.receive(Call.Continue)
	f.awaitReceiver(t)
	close(f.bind)
	awaitEnd(t, ended)
}

// TestStopLeavesCallsToBeAnswered: what was received before can be answered after.
func TestStopLeavesCallsToBeAnswered(t *testing.T) {
	f := newFiltered(t)
	defer close(f.bind)
	received := make(chan Call, 1)
	ended := f.receive(func(c Call) { received <- c })
	f.bind <- struct{}{}
	c := <-received
	f.Stop()
	awaitEnd(t, ended)
	if !c.Valid() {
		t.Error("nobody waits for the answer")
	}
	if err := c.Return(unix.EADDRNOTAVAIL); err != nil {
		t.Error(err)
	}
	if err := <-f.result; err != unix.EADDRNOTAVAIL {
		t.Errorf("the caller got %v", err)
	}
	f.Close()
}

// TestStopAtAnyTime stops just as the receiver begins to wait.
func TestStopAtAnyTime(t *testing.T) {
	for range 100 {
		f := newFiltered(t)
		ended := f.receive(Call.Continue)
		f.Stop()
		awaitEnd(t, ended)
		f.Close()
		close(f.bind)
	}
}
