package launch

import (
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// reaper reaps every process that ends below the child: the command, and
// orphans, whose new parent is the child, as a subreaper (prctl(2)) or as PID 1
// of a PID namespace.
type reaper struct {
	// programs is held while a handler runs a program, whose exit status the
	// reaper must not collect.
	programs sync.RWMutex
	sigchld  chan os.Signal
	// stopped receives a value when the command is stopped by a signal.
	stopped chan struct{}
	// isStopped says that the command is still stopped.
	isStopped atomic.Bool
}

func newReaper() *reaper {
	r := &reaper{sigchld: make(chan os.Signal, 1), stopped: make(chan struct{}, 1)}
	signal.Notify(r.sigchld, unix.SIGCHLD)
	return r
}

// run runs a program to its end, undisturbed by the reaper.
func (r *reaper) run(cmd *exec.Cmd) error {
	r.programs.RLock()
	defer r.programs.RUnlock()
	return cmd.Run()
}

// wait reaps until the command has ended and returns its status.
func (r *reaper) wait(command int) unix.WaitStatus {
	for {
		if status, ended := r.reap(command); ended {
			return status
		}
		<-r.sigchld
	}
}

// commandStopped is called when the command has been stopped or continued.
func (r *reaper) commandStopped(now bool) {
	r.isStopped.Store(now)
	if now {
		select {
		case r.stopped <- struct{}{}:
		default: // not yet asked for
		}
	}
}

// reap reaps all processes that have ended.
func (r *reaper) reap(command int) (status unix.WaitStatus, ended bool) {
	r.programs.Lock()
	defer r.programs.Unlock()
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG|unix.WUNTRACED|unix.WCONTINUED, nil)
		switch {
		case err == unix.EINTR:
		case err != nil || pid <= 0:
			return status, ended
		case ws.Stopped() || ws.Continued():
			if pid == command {
				r.commandStopped(ws.Stopped())
			}
		case pid == command:
			status, ended = ws, true
		}
	}
}
