// Package helper has what drivers with a helper program (slirp4netns, pasta)
// share: the supervision of the program, the device that it serves, and the
// addresses of the device.
//
// Theory of operation. A Program is started as a child of the launcher, in its
// own process group, so that the terminal's signals do not reach it. It dies
// with the launcher, however the launcher ends: Pdeathsig refers to the thread
// that started it, so a thread stays with it. One goroutine, the supervisor,
// waits for its end and starts it again, with growing delays and a bounded
// number of tries.
//
// To use the program (Do), a goroutine needs the turn, a token in a channel.
// The supervisor gives out the turn when the program is ready and takes it back
// when the program has died:
//
//	start, ready -> turn given -> dead -> turn taken -> start, ready, restore -> turn given
//
// So only restore talks to the new program until everything that the old one
// had is restored, and restore sees everything that was recorded under the
// turn.
package helper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"
)

// Config describes a program to run.
type Config struct {
	// Name is the program's name in messages.
	Name string
	// Command returns the command for one start of the program.
	Command func() (*Command, error)
	// Restore restores the state that was lost when a program died. If it fails
	// while the program lives, the error is final. May be nil.
	Restore func(context.Context) error
	// Version identifies the program in errors about it, and is only called for them.
	Version func() string
	Log     *slog.Logger
}

// Command is one start of a program.
type Command struct {
	Path string
	Args []string
	// Files are the program's descriptors from 3 on. They are closed in this
	// process once it runs.
	Files []*os.File
	// Ready becomes readable when the program is ready, and is then closed.
	Ready *os.File
	// Held is closed when the program has ended, or with this process. May be nil.
	Held *os.File
}

// Program is a helper program that runs until its context ends.
type Program struct {
	cfg  Config
	turn chan *process
	done chan struct{}
	err  error // set before done is closed
}

const (
	readyTimeout = 20 * time.Second
	// A program that is not ready after slowAfter is logged.
	slowAfter  = 3 * time.Second
	firstDelay = 20 * time.Millisecond
	// maxFailures in a row, each within stableAfter of the start, end the run;
	// by then the delays add up to 2.5 s.
	maxFailures = 7
	stableAfter = 10 * time.Second
)

// Start starts the program and returns when it is ready. The program runs until
// ctx ends, and is restarted if necessary.
func Start(ctx context.Context, cfg Config) (*Program, error) {
	p := &Program{cfg: cfg, turn: make(chan *process, 1), done: make(chan struct{})}
	proc, err := p.launch(ctx)
	if err != nil {
		return nil, err
	}
	p.turn <- proc
	go p.supervise(ctx, proc)
	return p, nil
}

// Wait blocks until the program has ended permanently. It returns nil after the
// end of the context, and otherwise why the program cannot be kept running.
func (p *Program) Wait() error {
	<-p.done
	return p.err
}

// Ended is closed when the program has ended permanently.
func (p *Program) Ended() <-chan struct{} { return p.done }

// ErrEnded is the error of Do when the program has ended permanently.
var ErrEnded = errors.New("the helper program has ended")

// Do runs f while the program is ready and no other goroutine has the turn. If
// f fails because the program died, Do runs it again with the next one.
func (p *Program) Do(ctx context.Context, f func() error) error {
	for {
		select {
		case proc := <-p.turn:
			err := f()
			p.turn <- proc
			if err == nil || !proc.isDying() {
				return err
			}
			select {
			case <-proc.reclaimed:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		case <-p.done:
			return fmt.Errorf("%s: %w", p.cfg.Name, ErrEnded)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// supervise holds the turn whenever the program is not ready.
func (p *Program) supervise(ctx context.Context, proc *process) {
	defer close(p.done)
	failures := 0
	for {
		started := time.Now()
		<-proc.exited
		<-p.turn
		close(proc.reclaimed)
		if ctx.Err() != nil {
			return
		}
		if time.Since(started) > stableAfter {
			failures = 0
		}
		p.cfg.Log.Warn(p.cfg.Name+" has died, restarting it", "reason", proc.reason())
		if proc, p.err = p.revive(ctx, proc.reason(), &failures); proc == nil {
			return
		}
		p.cfg.Log.Info(p.cfg.Name + " runs again")
		p.turn <- proc
	}
}

// revive starts the program again until it works. It returns no process if ctx
// has ended, or, with an error, if the program cannot be kept running.
func (p *Program) revive(ctx context.Context, reason error, failures *int) (*process, error) {
	for *failures < maxFailures {
		select {
		case <-time.After(firstDelay << *failures):
		case <-ctx.Done():
			return nil, nil
		}
		*failures++
		proc, err := p.launch(ctx)
		if err != nil {
			reason = err
			continue
		}
		err = p.restore(ctx)
		if err == nil {
			return proc, nil
		}
		died := proc.isDying()
		proc.stop()
		if ctx.Err() != nil {
			return nil, nil
		}
		if !died {
			return nil, fmt.Errorf("%s died and was restarted, but its state cannot be restored: %w", p.cfg.Name, err)
		}
		reason = proc.reason()
	}
	if ctx.Err() != nil {
		return nil, nil
	}
	return nil, fmt.Errorf("%s died %d times in a row: %w", p.cfg.Name, *failures, reason)
}

func (p *Program) restore(ctx context.Context) error {
	if p.cfg.Restore == nil {
		return nil
	}
	return p.cfg.Restore(ctx)
}

// launch starts the program once and waits until it is ready.
func (p *Program) launch(ctx context.Context) (*process, error) {
	cmd, err := p.cfg.Command()
	if err != nil {
		return nil, err
	}
	proc, err := startProcess(ctx, cmd, p.cfg.Log.With("program", p.cfg.Name))
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", p.cfg.Name, err)
	}
	slow := time.AfterFunc(slowAfter, func() {
		p.cfg.Log.Warn(p.cfg.Name+" is not ready yet, still waiting", "after", slowAfter, "version", p.cfg.Version())
	})
	err = proc.awaitReady(ctx, cmd.Ready)
	slow.Stop()
	if err != nil {
		proc.stop()
		return nil, fmt.Errorf("starting %s: %w (%s)", p.cfg.Name, err, p.cfg.Version())
	}
	return proc, nil
}
