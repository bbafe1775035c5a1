package helper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/hostsock"
	"rootlesskit/internal/netns"
)

// Forwarder asks a running program to publish a port. It is called by one
// goroutine at a time.
type Forwarder interface {
	// Check checks a port before anything is done; open lists the published ports.
	// It may refuse ports that the program would serve incorrectly.
	Check(spec api.PortSpec, open []api.PortSpec) error
	// Add publishes a port that is free on the host. It returns once the port is
	// open, with a function that closes it in the same way.
	Add(ctx context.Context, spec api.PortSpec) (remove func(context.Context) error, err error)
}

// Forwards are the ports published through a Program: the part that port
// drivers share. The program's turn guards its contents.
type Forwards struct {
	program   *Program
	forwarder Forwarder
	open      []*forward
	ctx       context.Context
	done      chan struct{}
}

type forward struct {
	forwards *Forwards
	spec     api.PortSpec
	remove   func(context.Context) error
}

// requestTimeout bounds one request to a program.
const requestTimeout = time.Minute

// NewForwards returns an empty list. Put its Restore into the Config of the
// program that is passed to Start.
func NewForwards(f Forwarder) *Forwards {
	return &Forwards{forwarder: f, done: make(chan struct{})}
}

// Start makes the list ready for use until ctx ends, which closes all ports.
func (f *Forwards) Start(ctx context.Context, program *Program) error {
	if program == nil {
		return errors.New("the network is not attached")
	}
	f.ctx, f.program = ctx, program
	go func() {
		defer close(f.done)
		<-ctx.Done()
		_ = program.Do(context.WithoutCancel(ctx), f.closeAll) // it fails if the program has ended, and its ports with it
	}()
	return nil
}

// Wait blocks until all ports are closed after the end of Start's context. The
// network reports the death of the program.
func (f *Forwards) Wait() error {
	<-f.done
	return nil
}

// Forward publishes a port.
func (f *Forwards) Forward(ctx context.Context, spec api.PortSpec) (io.Closer, error) {
	if f.program == nil || f.ctx.Err() != nil {
		return nil, errors.New("the port driver has ended")
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	fw := &forward{forwards: f, spec: spec}
	var refused error // refused by the program, not for lack of one
	err := f.program.Do(ctx, func() error {
		if refused = f.check(spec); refused != nil {
			return nil
		}
		return f.add(ctx, fw)
	})
	if err = errors.Join(refused, err); err != nil {
		return nil, err
	}
	return fw, nil
}

// check checks a port before the program is asked for it.
func (f *Forwards) check(spec api.PortSpec) error {
	if err := checkFree(spec); err != nil {
		return err
	}
	var open []api.PortSpec
	for _, o := range f.open {
		open = append(open, o.spec)
	}
	return f.forwarder.Check(spec, open)
}

// checkFree returns the error for a port that cannot be bound with the wording
// of package net, unlike the errors of the programs.
func checkFree(spec api.PortSpec) error {
	fds, err := hostsock.Listen(spec.Proto, spec.ParentIP, spec.ParentPort)
	for _, fd := range fds {
		unix.Close(fd)
	}
	if errors.Is(err, unix.EADDRINUSE) && spec.Proto.Transport() == api.UDP {
		// pasta keeps flows of a closed port in sockets that share the port; none of
		// them listens.
		servers, diagErr := netns.Listeners(unix.IPPROTO_UDP, uint16(spec.ParentPort))
		if diagErr == nil && len(servers) == 0 {
			return nil
		}
	}
	return err
}

func (f *Forwards) add(ctx context.Context, fw *forward) (err error) {
	if fw.remove, err = f.forwarder.Add(ctx, fw.spec); err != nil {
		return err
	}
	f.open = append(f.open, fw)
	return nil
}

// Restore publishes all ports again, on a program that knows none of them.
func (f *Forwards) Restore(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	for _, fw := range f.open {
		err := checkFree(fw.spec)
		if err == nil {
			fw.remove, err = f.forwarder.Add(ctx, fw.spec)
		}
		if err != nil {
			return fmt.Errorf("port %s: %w", fw.spec, err)
		}
	}
	return nil
}

// Close implements io.Closer. It returns when the port is closed.
func (fw *forward) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	err := fw.forwards.program.Do(ctx, func() error { return fw.forwards.close(ctx, fw) })
	if errors.Is(err, ErrEnded) {
		return nil // and its ports with it
	}
	return err
}

func (f *Forwards) close(ctx context.Context, fw *forward) error {
	i := slices.Index(f.open, fw)
	if i < 0 {
		return nil
	}
	if err := fw.remove(ctx); err != nil {
		return err
	}
	f.open = slices.Delete(f.open, i, i+1)
	return nil
}

func (f *Forwards) closeAll() error {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	for len(f.open) > 0 {
		if err := f.close(ctx, f.open[0]); err != nil {
			return err
		}
	}
	return nil
}
