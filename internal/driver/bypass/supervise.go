package bypass

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/kernel"
	"rootlesskit/internal/netns"
	"rootlesskit/internal/seccomp"
)

// Whether there can be native ports here, and the supervision of the command.

// why says why the command has no native ports; nil: it can have them.
func (p *Ports) why() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.noNative
}

// noCommand says why the command gets no filter. A process can have one filter with
// a listener, so where the command is a container engine, the kernel would refuse the
// filters of its containers.
func (p *Ports) noCommand() error {
	switch {
	case p.sb.Detached:
		return errors.New("the command is not in the network namespace (--detach-netns)")
	case p.socket != "":
		return errors.New("the command is a container engine (--bypass4netnsd-socket)")
	}
	return nil
}

// unavailable says why no server at all can be native; nil: some can.
func (p *Ports) unavailable() error {
	var why *unavailableError
	if errors.As(p.why(), &why) {
		return why
	}
	return nil
}

// unavailableError is a reason that holds until the end of the run.
type unavailableError struct{ error }

// fallBack leaves all ports to the fallback, and logs why.
func (p *Ports) fallBack(why error) {
	p.mu.Lock()
	p.noNative = &unavailableError{why}
	p.mu.Unlock()
	p.sb.Log.Warn("published ports are not native, the relay serves them", "reason", why)
}

// probe finds out whether native ports are possible with this kernel, and for this
// process.
func (p *Ports) probe(ctx context.Context) (err error) {
	if err := seccomp.Probe(); err != nil {
		return err
	}
	if p.isolate {
		if err := kernel.LandlockTCP.Check(); err != nil {
			return fmt.Errorf("--disable-host-loopback: %w", err)
		}
	}
	if p.child, err = p.NetnsOf(ctx, 0); err != nil {
		return err
	}
	own, err := hostSockets(unix.AF_INET, 1)
	if err != nil {
		return err
	}
	defer unix.Close(own[0])
	p.host, err = netns.Cookie(own[0])
	return err
}

// NetnsOf implements containers.Driver; 0 is the child itself.
func (p *Ports) NetnsOf(ctx context.Context, pid int) (uint64, error) {
	fds, err := netns.Sockets(ctx, p.sb.Child, netns.SocketRequest{Family: unix.AF_INET, Type: unix.SOCK_STREAM, Count: 1, PID: pid})
	if err != nil {
		return 0, err
	}
	defer unix.Close(fds[0])
	return netns.Cookie(fds[0])
}

// Policy implements driver.Supervisor.
func (p *Ports) Policy() *seccomp.Policy {
	if p.unavailable() != nil || p.noCommand() != nil {
		return nil
	}
	return &seccomp.Policy{Isolate: p.isolate}
}

// Supervise implements driver.Supervisor.
func (p *Ports) Supervise(fd int, err error) {
	if err != nil {
		p.fallBack(err)
		return
	}
	l, err := seccomp.NewListener(fd)
	if err != nil {
		p.fallBack(err)
		return
	}
	p.mu.Lock()
	p.noNative = nil
	p.mu.Unlock()
	p.sb.Log.Info("published TCP ports become native when a server binds them", "isolated", p.isolate)
	p.run(&session{driver: p, isolate: p.isolate, netns: p.child, published: p.publishedBy(nil)}, l, func(err error) {
		if err != nil {
			p.fallBack(err)
		}
	})
}

// run answers the calls of a session until the session or the driver ends.
func (p *Ports) run(s *session, l *seccomp.Listener, ended func(error)) {
	stop := context.AfterFunc(p.ctx, l.Stop)
	p.sessions.Go(func() {
		err := s.answer(l)
		stop()
		ended(err)
	})
}
