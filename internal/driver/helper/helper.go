// Package helper is what the drivers backed by a helper program (slirp4netns,
// pasta) share: the supervision of the program, the device it serves, and the
// addresses on it.
//
// Theory of operation. A Program is started as a child of the launcher, in a
// process group of its own so that the terminal's signals do not reach it, and
// dies with the launcher, however that ends: Pdeathsig is about the thread that
// started it, so one thread stays with it. One goroutine, the supervisor, waits
// for its end and starts it again, with delays that grow and a bound on tries.
//
// Whoever wants something of the program (Do) needs the turn, a token in a
// channel. The supervisor hands it out when the program is ready and takes it
// back when the program is dead:
//
//	start, ready -> turn given -> dead -> turn taken -> start, ready, restore -> turn given
//
// So restore alone speaks to the new program until all that the old one had is
// put back, and what is recorded under the turn is what restore finds.
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
	// Command makes one start of the program.
	Command func() (*Command, error)
	// Restore puts back what a program that died took along. An error of a
	// program that lives is final. May be nil.
	Restore func(context.Context) error
	// Version says which program it is, where it does not do as it should. It is asked
	// only then.
	Version func() string
	Log     *slog.Logger
}

// Command is one start of a program.
type Command struct {
	Path string
	Args []string
	// Files are the program's descriptors from 3 on. They are closed here once
	// it runs.
	Files []*os.File
	// Ready is readable once the program is; it is closed then.
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
	// A program that is not ready after slowAfter is told of.
	slowAfter  = 3 * time.Second
	firstDelay = 20 * time.Millisecond
	// maxFailures in a row, each within stableAfter of the start, end the run;
	// by then the delays add up to 2.5 s.
	maxFailures = 7
	stableAfter = 10 * time.Second
	// deathNotice is how long after a failed request the program's death may
	// come to be known that explains it.
	deathNotice = 100 * time.Millisecond
)

// Start starts the program and returns when it is ready. It runs until ctx
// ends, restarted where necessary.
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

// Wait blocks until the program has ended for good: nil after the context
// ended, else why it cannot be kept running.
func (p *Program) Wait() error {
	<-p.done
	return p.err
}

// Ended is closed when the program has ended for good.
func (p *Program) Ended() <-chan struct{} { return p.done }

// ErrEnded is what Do returns when the program has ended for good.
var ErrEnded = errors.New("the helper program has ended")

// Do runs f while the program is ready and nobody else has its turn. Where f
// fails because the program died, it is run again on the next one.
func (p *Program) Do(ctx context.Context, f func() error) error {
	for {
		select {
		case proc := <-p.turn:
			err := f()
			p.turn <- proc
			if err == nil || !proc.diesWithin(deathNotice) {
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

// supervise owns the turn whenever the program is not ready.
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

// revive starts the program again until it works. The process is nil when ctx
// has ended or it cannot be helped, which the error then says.
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
		died := proc.diesWithin(deathNotice)
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
