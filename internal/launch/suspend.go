package launch

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/wire"
)

// Ctrl-Z in a shell stops the processes of a job, and the shell goes on once
// the one that it started has stopped: the parent. But the parent catches the
// signal, for the command may be another's job, or have a use for it. So it is
// the command that decides: when it has stopped, the child tells the parent,
// which stops itself. SIGCONT finds its way like every signal.
//
// The child does not stop. As PID 1 of a PID namespace it could not, and it
// does nothing unasked.

const (
	stoppedMethod      wire.Method[wire.None, wire.None] = "launch.stopped"
	stillStoppedMethod wire.Method[wire.None, bool]      = "launch.stillstopped"
)

// stopped is the call that returns when the command has been stopped.
func (c *child) stopped(ctx context.Context, _ wire.None) (none wire.None, fds []int, err error) {
	select {
	case <-c.reaper.stopped:
		return none, nil, nil
	case <-ctx.Done():
		return none, nil, ctx.Err()
	}
}

// stillStopped is the call that says whether the command is stopped now.
func (c *child) stillStopped(context.Context, wire.None) (stopped bool, fds []int, err error) {
	return c.reaper.isStopped.Load(), nil, nil
}

// stillStopped asks whether the command is stopped now. A signal that continued
// it may have overtaken the word of its stop, or the other way round.
func (p *process) stillStopped(ctx context.Context) bool {
	stopped, _, err := stillStoppedMethod.Call(ctx, p.client, wire.None{})
	return err == nil && stopped
}

// watchStops tells of each stop of the command until ctx ends.
func (p *process) watchStops(ctx context.Context, stops chan<- struct{}) {
	for {
		if _, _, err := stoppedMethod.Await(ctx, p.client, wire.None{}); err != nil {
			return // the end of the run
		}
		select {
		case stops <- struct{}{}:
		case <-ctx.Done():
			return
		}
	}
}

// suspend stops this process until SIGCONT, as SIGTSTP does by default. Unlike
// SIGSTOP it has no effect where no shell could continue the job (an orphaned
// process group). signal.Reset does not restore the default of this signal.
func suspend() error {
	runtime.LockOSThread() // the signal is the thread's, so it takes effect before we go on
	defer runtime.UnlockOSThread()
	var byDefault, ours sigaction
	if err := rtSigaction(unix.SIGTSTP, &byDefault, &ours); err != nil {
		return fmt.Errorf("suspending: rt_sigaction: %w", err)
	}
	err := unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGTSTP)
	if restoreErr := rtSigaction(unix.SIGTSTP, &ours, nil); err == nil {
		err = restoreErr
	}
	if err != nil {
		return fmt.Errorf("suspending: %w", err)
	}
	return nil
}

// sigaction is the kernel's struct of that name, whose layout is the machine's;
// it is larger on none. Zero is the default action.
type sigaction [64]byte

func rtSigaction(sig unix.Signal, action, old *sigaction) error {
	const sigsetSize = 8
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig),
		uintptr(unsafe.Pointer(action)), uintptr(unsafe.Pointer(old)), sigsetSize, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// stopsByDefault reports whether a process neither catches nor ignores SIGTSTP
// (proc_pid_status(5)).
func stopsByDefault(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	for line := range bytes.Lines(status) {
		name, mask, _ := bytes.Cut(bytes.TrimSpace(line), []byte(":\t"))
		if string(name) != "SigIgn" && string(name) != "SigCgt" {
			continue
		}
		bits, err := strconv.ParseUint(string(mask), 16, 64)
		if err != nil || bits&(1<<(unix.SIGTSTP-1)) != 0 {
			return false
		}
	}
	return true
}
