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

// Ctrl-Z in a shell stops the processes of a job, and the shell continues once
// the process that it started has stopped: the parent. But the parent catches
// the signal, since the command may belong to another job, or may handle the
// signal. So the command decides: when it has stopped, the child tells the
// parent, which stops itself. SIGCONT is passed on like every signal.
//
// The child does not stop. As PID 1 of a PID namespace it could not, and it
// only acts on request anyway.

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

// stillStopped is the call that returns whether the command is stopped now.
func (c *child) stillStopped(context.Context, wire.None) (stopped bool, fds []int, err error) {
	return c.reaper.isStopped.Load(), nil, nil
}

// stillStopped asks whether the command is stopped now. A signal that continued
// it may have overtaken the report of its stop, or vice versa.
func (p *process) stillStopped(ctx context.Context) bool {
	stopped, _, err := stillStoppedMethod.Call(ctx, p.client, wire.None{})
	return err == nil && stopped
}

// watchStops reports each stop of the command until ctx ends.
func (p *process) watchStops(ctx context.Context, stops chan<- struct{}) {
	for {
		if _, _, err := stoppedMethod.Await(ctx, p.client, wire.None{}); err != nil {
			return // the run has ended
		}
		select {
		case stops <- struct{}{}:
		case <-ctx.Done():
			return
		}
	}
}

// suspend stops this process until SIGCONT, as SIGTSTP does by default. Unlike
// SIGSTOP, it has no effect if no shell could continue the job (an orphaned
// process group). signal.Reset does not restore the default of this signal.
func suspend() error {
	runtime.LockOSThread() // the signal goes to this thread, so it takes effect before the function continues
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

// sigaction is the kernel's struct of that name. Its layout depends on the
// architecture, but none is larger. Zero is the default action.
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
