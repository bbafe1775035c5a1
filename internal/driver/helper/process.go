package helper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"rootlesskit/internal/procstate"
)

// process is one life of a program.
type process struct {
	cancel context.CancelFunc // kills it
	pid    int
	errors *output // its standard error

	exited chan struct{} // closed when the process has ended and err is set
	err    error
	// reclaimed is closed when the supervisor has taken the turn back.
	reclaimed chan struct{}
}

// startProcess starts the program; it is killed when ctx ends.
func startProcess(ctx context.Context, c *Command, log *slog.Logger) (*process, error) {
	ctx, cancel := context.WithCancel(ctx)
	p := &process{
		cancel:    cancel,
		errors:    &output{log: log},
		exited:    make(chan struct{}),
		reclaimed: make(chan struct{}),
	}
	cmd := exec.CommandContext(ctx, c.Path, c.Args...)
	cmd.Stdout, cmd.Stderr = &output{log: log}, p.errors
	cmd.ExtraFiles = c.Files
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second // in case it leaves a process that holds its standard error
	log.Debug("starting", "args", cmd.Args)

	started := make(chan error)
	go p.run(cmd, c, started)
	if err := <-started; err != nil {
		cancel()
		return nil, err
	}
	return p, nil
}

// run starts the command and waits for its end, both on one thread, because the
// end of the thread would kill the command (PR_SET_PDEATHSIG in prctl(2)).
func (p *process) run(cmd *exec.Cmd, c *Command, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Start()
	for _, f := range c.Files {
		f.Close()
	}
	if c.Held != nil {
		defer c.Held.Close()
	}
	if err == nil {
		p.pid = cmd.Process.Pid
	}
	started <- err
	if err != nil {
		c.Ready.Close()
		return
	}
	if p.err = cmd.Wait(); p.err == nil {
		p.err = errors.New("exit status 0")
	}
	p.cancel()
	close(p.exited)
}

// awaitReady reads ready until the program writes to it.
func (p *process) awaitReady(ctx context.Context, ready *os.File) error {
	result := make(chan error, 1)
	go func() {
		_, err := ready.Read(make([]byte, 1))
		result <- err
	}()
	err, read := error(nil), false
	select {
	case err = <-result:
		read = true
	case <-p.exited:
		ready.Close() // ends the read
		if <-result == nil {
			return nil // it was ready before it ended
		}
		return p.reason()
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-time.After(readyTimeout):
		err = fmt.Errorf("it is not ready after %v", readyTimeout)
	}
	ready.Close() // ends the read
	if !read {
		<-result
	}
	if errors.Is(err, io.EOF) { // it has closed its end of the pipe, so it is ending
		p.diesWithin(readyTimeout)
		err = p.reason()
	}
	return err
}

// isDying reports whether the process has ended or is about to, and then waits for its
// end. A program's sockets are closed while it is ending: one that ended is the reason
// for requests that failed.
func (p *process) isDying() bool {
	if procstate.IsEnding(p.pid) {
		<-p.exited
		return true
	}
	return p.diesWithin(0)
}

// diesWithin reports whether the process has ended, or ends within the given time.
func (p *process) diesWithin(d time.Duration) bool {
	select {
	case <-p.exited:
		return true
	case <-time.After(d):
		return false
	}
}

// reason says how the process ended, with the last lines of its standard error.
func (p *process) reason() error {
	select {
	case <-p.exited:
	default:
		return errors.New("it closed the descriptor for its readiness without reporting it")
	}
	if last := p.errors.tail(); last != "" {
		return fmt.Errorf("%w: %s", p.err, last)
	}
	return p.err
}

// stop kills the process and waits for its end.
func (p *process) stop() {
	p.cancel()
	<-p.exited
}
