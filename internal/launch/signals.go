package launch

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Signals go parent -> child -> command. The trouble is the terminal's: Ctrl-C
// reaches every process of the foreground group, the command too, and must not
// reach it a second and third time. Only the sender tells the cases apart, and
// only a signalfd(2) tells the sender, for which a signal has to be blocked on
// every thread. A Go program keeps signals blocked that were blocked when it
// was executed, so the parent blocks them around the start of the child.

// forwardable tells the signals that are passed on: all but those that a
// process raises itself, that concern its own children, or that cannot be
// caught.
func forwardable(s unix.Signal) bool {
	switch s {
	case unix.SIGKILL, unix.SIGSTOP, unix.SIGCHLD, unix.SIGPIPE, unix.SIGURG,
		unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGSYS, unix.SIGABRT,
		unix.SIGPROF, unix.SIGVTALRM,
		32, 33: // the C library's own
		return false
	}
	return true
}

func forwardableSignals() []unix.Signal {
	var all []unix.Signal
	for s := unix.Signal(1); s <= 64; s++ {
		if forwardable(s) {
			all = append(all, s)
		}
	}
	return all
}

func signalSet() *unix.Sigset_t {
	var set unix.Sigset_t
	bits := uint(8 * unsafe.Sizeof(set.Val[0]))
	for _, s := range forwardableSignals() {
		n := uint(s - 1)
		set.Val[n/bits] |= 1 << (n % bits)
	}
	return &set
}

// blockSignals blocks the forwarded signals on the calling thread, which must
// be locked, and returns the mask that was in force.
func blockSignals() (before unix.Sigset_t, err error) {
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, signalSet(), &before); err != nil {
		return before, fmt.Errorf("blocking signals: %w", err)
	}
	return before, nil
}

// maskWords turns a mask into what a message can carry.
func maskWords(set unix.Sigset_t) []uint64 {
	var words []uint64
	for _, v := range set.Val {
		words = append(words, uint64(v))
	}
	return words
}

// setSignalMask gives the calling thread a mask until restore is called.
func setSignalMask(words []uint64) (restore func(), err error) {
	var set, before unix.Sigset_t
	for i := range min(len(words), len(set.Val)) {
		setWord(&set, i, words[i])
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &set, &before); err != nil {
		return nil, fmt.Errorf("setting the signal mask: %w", err)
	}
	return func() { _ = unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil) }, nil
}

// catchSignals collects the signals that the parent forwards. One that was
// ignored from the start (nohup(1)) stays so.
func catchSignals() chan os.Signal {
	caught := make(chan os.Signal, 128)
	for _, s := range forwardableSignals() {
		if !signal.Ignored(s) {
			signal.Notify(caught, s)
		}
	}
	return caught
}

// forwardSignals sends what is caught to a process until ctx ends.
func forwardSignals(ctx context.Context, caught <-chan os.Signal, pid int) {
	for {
		select {
		case s := <-caught:
			// ESRCH: the process is just ending.
			_ = unix.Kill(pid, s.(syscall.Signal))
		case <-ctx.Done():
			return
		}
	}
}

// signalReader reads the child's signals and who sent them.
type signalReader struct{ file *os.File }

func newSignalReader() (*signalReader, error) {
	fd, err := unix.Signalfd(-1, signalSet(), unix.SFD_NONBLOCK|unix.SFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("signalfd: %w", err)
	}
	return &signalReader{os.NewFile(uintptr(fd), "signalfd")}, nil
}

// fromKernel is si_code of a signal that the terminal sent (sigaction(2)).
const fromKernel = 0x80

// echoWindow is the time in which the parent passes a signal of the terminal on.
const echoWindow = 200 * time.Millisecond

// forward sends signals to the command until the process ends. A command in
// the same process group has had the terminal's signals itself; the parent's
// echo of one that came a moment ago is dropped in any case.
func (r *signalReader) forward(command int, ownSession bool) {
	parent := uint32(os.Getppid())
	var fromTerminal [65]time.Time
	for {
		var info unix.SignalfdSiginfo
		buf := unsafe.Slice((*byte)(unsafe.Pointer(&info)), unsafe.Sizeof(info))
		if _, err := r.file.Read(buf); err != nil {
			return
		}
		switch {
		case info.Signo > 64:
			continue
		case info.Code == fromKernel:
			fromTerminal[info.Signo] = time.Now()
			if !ownSession {
				continue
			}
		case info.Pid == parent && time.Since(fromTerminal[info.Signo]) < echoWindow:
			continue
		}
		_ = unix.Kill(command, unix.Signal(info.Signo))
	}
}
