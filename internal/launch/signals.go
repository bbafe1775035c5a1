package launch

import (
	"context"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/wire"
)

// Signals go parent -> child -> command. The terminal makes this difficult:
// Ctrl-C reaches every process of the foreground group, including the command,
// and must not reach it a second and a third time when the launcher passes the
// signal on.
//
// A Go program cannot ask who sent a signal. But the terminal sends it to both
// parent and child, while kill(1) sends it to one of them. So the parent passes
// a signal that the terminal may have sent over the wire, and the child
// compares: if the child got the signal too, the terminal sent it, and the
// command already has it. If no second copy arrives, the signal was meant for the
// command. Without a terminal there is no need to wait.
//
// How long to wait is not a matter of time alone, since a busy machine may keep
// either process from running. When the parent's copy comes, the child's own is
// there, and needs no more than that the child runs for a while. The parent's may
// take long, and only that one is worth waiting for that somebody sends to the child
// alone, which is rare.

const (
	// echoWindow is how long a copy usually takes at the most.
	echoWindow = 100 * time.Millisecond
	// The child has had the time to run when it has seen that many ticks.
	echoTick  = echoWindow / 5
	echoTicks = 10
	// parentPatience is how long the child's own copy waits for the parent's.
	parentPatience = 3 * time.Second
)

const signalMethod wire.Method[signalRequest, wire.None] = "launch.signal"

type signalRequest struct {
	Signal unix.Signal `json:"signal"`
}

// forwardable reports whether a signal is passed on. All are, except those of a
// fault of the process itself, of Go's profiler, those about its own children
// or sockets, and those that cannot be caught. systemd's watchdog sends
// SIGABRT.
func forwardable(s unix.Signal) bool {
	switch s {
	case unix.SIGKILL, unix.SIGSTOP, unix.SIGCHLD, unix.SIGPIPE, unix.SIGURG,
		unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGPROF,
		32, 33: // used by the C library
		return false
	}
	return true
}

// ofTerminal reports whether a terminal sends the signal to its processes
// (tty_ioctl(4), termios(3)).
func ofTerminal(s unix.Signal) bool {
	switch s {
	case unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGWINCH, unix.SIGCONT:
		return true
	}
	return false
}

// catchSignals catches the signals that are passed on. A signal that was
// ignored from the start (nohup(1)) stays ignored.
func catchSignals() chan os.Signal {
	caught := make(chan os.Signal, 128)
	for s := unix.Signal(1); s <= 64; s++ {
		if forwardable(s) && !signal.Ignored(s) {
			signal.Notify(caught, s)
		}
	}
	return caught
}

// signal is the parent's side.
func (p *process) signal(ctx context.Context, sig unix.Signal) {
	if ofTerminal(sig) {
		_, _, _ = signalMethod.Call(ctx, p.client, signalRequest{sig})
	} else {
		_ = unix.Kill(p.pid, sig)
	}
}

// signalSorter is the child's side: it passes each signal to the command once.
type signalSorter struct {
	own    <-chan os.Signal
	passed chan unix.Signal // by the parent
	// terminal says that the child has a controlling terminal, and ownSession
	// that the command was started outside of it.
	terminal, ownSession bool
}

func newSignalSorter(ownSession bool) *signalSorter {
	return &signalSorter{
		own:        catchSignals(),
		passed:     make(chan unix.Signal, 16),
		terminal:   hasTerminal(),
		ownSession: ownSession,
	}
}

// hasTerminal reports whether the process has a controlling terminal (tty(4)).
func hasTerminal() bool {
	fd, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// handle handles the call with which the parent passes a signal.
func (s *signalSorter) handle(ctx context.Context, req signalRequest) (none wire.None, fds []int, err error) {
	select {
	case s.passed <- req.Signal:
		return none, nil, nil
	case <-ctx.Done():
		return none, nil, ctx.Err()
	}
}

// copies are those of a signal that wait for the other ones, all passed by the parent
// or all the child's own.
type copies struct {
	byParent bool
	n        int // none: that others have met is remembered until due
	// met says that others have met their second copy lately. The kernel merges
	// signals that come quickly, so one process may get more of them than the other.
	met   bool
	due   time.Time // of the child's own
	ticks int       // since the latest one that the parent has passed
}

// run passes signals to the command until the process ends.
func (s *signalSorter) run(command int) {
	waiting := map[unix.Signal]copies{}
	tick := time.NewTicker(echoTick)
	tick.Stop()
	for {
		select {
		case sig := <-s.own:
			s.sort(command, waiting, sig.(syscall.Signal), false)
		case sig := <-s.passed:
			s.sort(command, waiting, sig, true)
		case now := <-tick.C:
			for _, sig := range due(waiting, now) {
				_ = unix.Kill(command, sig)
			}
		}
		if len(waiting) > 0 {
			tick.Reset(echoTick)
		} else {
			tick.Stop()
		}
	}
}

func (s *signalSorter) sort(command int, waiting map[unix.Signal]copies, sig unix.Signal, byParent bool) {
	if !s.terminal || !ofTerminal(sig) {
		_ = unix.Kill(command, sig)
		return
	}
	takeBack(waiting, sig)
	c := waiting[sig]
	end := time.Now().Add(parentPatience)
	if c.n == 0 || c.byParent == byParent {
		met := c.met && (c.n > 0 || !byParent)
		waiting[sig] = copies{byParent: byParent, n: c.n + 1, met: met, due: end}
		return
	}
	waiting[sig] = copies{byParent: c.byParent && c.n > 1, n: c.n - 1, met: true, due: end}
	switch {
	case s.ownSession:
		sendToSession(command, sig)
	case inOtherGroup(command): // the terminal did not reach it
		_ = unix.Kill(command, sig)
	}
}

// takeBack drops the signals that this signal cancels: a continuing signal cancels
// stopping ones, and vice versa (signal(7)). A late copy must not undo what the
// user has done since.
func takeBack(waiting map[unix.Signal]copies, sig unix.Signal) {
	stops := []unix.Signal{unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU}
	switch {
	case sig == unix.SIGCONT:
		for _, stop := range stops {
			delete(waiting, stop)
		}
	case slices.Contains(stops, sig):
		delete(waiting, unix.SIGCONT)
	}
}

// inOtherGroup reports whether a process has left this process group, as a
// shell with job control does.
func inOtherGroup(pid int) bool {
	group, err := unix.Getpgid(pid)
	return err == nil && group != unix.Getpgrp()
}

// sendToSession passes a signal from the terminal to a command that leads a
// session without one. In such a session SIGTSTP does not stop a process,
// because the kernel assumes that no one could continue it; but here the
// launcher can.
func sendToSession(command int, sig unix.Signal) {
	switch {
	case sig == unix.SIGTSTP && stopsByDefault(command):
		_ = unix.Kill(-command, unix.SIGSTOP)
	case sig == unix.SIGCONT:
		_ = unix.Kill(-command, sig)
	default:
		_ = unix.Kill(command, sig)
	}
}

// due returns what has waited in vain, and forgets it. It is called at each tick.
func due(waiting map[unix.Signal]copies, now time.Time) (alone []unix.Signal) {
	for sig, c := range waiting {
		c.ticks++
		if c.byParent && c.ticks < echoTicks || !c.byParent && now.Before(c.due) {
			waiting[sig] = c
			continue
		}
		delete(waiting, sig)
		if c.n > 0 && !c.met {
			alone = append(alone, sig)
		}
	}
	return alone
}
