package launch

import (
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// reaper collects every process that ends below the child: the command, and
// orphans, whose new parent the child is as a subreaper (prctl(2)) or as PID 1
// of a PID namespace.
type reaper struct {
	// programs is held while a handler runs a program of its own, whose exit
	// status must not be taken from it.
	programs sync.RWMutex
	sigchld  chan os.Signal
	// stopped has something when the command was stopped by a signal.
	stopped chan struct{}
	// isStopped says that it still is.
	isStopped atomic.Bool
}

func newReaper() *reaper {
	r := &reaper{sigchld: make(chan os.Signal, 1), stopped: make(chan struct{}, 1)}
	signal.Notify(r.sigchld, unix.SIGCHLD)
	return r
}

// run runs a program to its end, undisturbed.
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

// commandStopped is called when the command has been stopped, or continued.
func (r *reaper) commandStopped(now bool) {
	r.isStopped.Store(now)
	if now {
		select {
		case r.stopped <- struct{}{}:
		default: // not yet asked for
		}
	}
}

// reap collects all that have ended.
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

// killDescendants ends every process below this one. Its children are killed;
// what they leave becomes its children in turn, until there are none.
func killDescendants() {
	self := os.Getpid()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		children := childrenOf(self)
		for _, pid := range children {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		var ws unix.WaitStatus
		for {
			pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
			if err == unix.ECHILD {
				return
			}
			if pid <= 0 && err != unix.EINTR {
				break
			}
		}
		time.Sleep(time.Millisecond) // SIGKILL takes a moment
	}
}

// childrenOf lists the processes whose parent is pid.
func childrenOf(pid int) []int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	var children []int
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // ended meanwhile
		}
		// proc_pid_stat(5): the name, in parentheses, may hold anything.
		_, rest, ok := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ")
		fields := strings.Fields(rest)
		if !ok || len(fields) < 2 || fields[1] != strconv.Itoa(pid) {
			continue
		}
		if n, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			children = append(children, n)
		}
	}
	return children
}
