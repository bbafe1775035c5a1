package launch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/apiserver"
	"rootlesskit/internal/driver"
	"rootlesskit/internal/hostsock"
	"rootlesskit/internal/ports"
	"rootlesskit/internal/trim"
	"rootlesskit/internal/unixsock"
)

// Run runs the command and returns its exit code, or 1 and the reason if it
// could not be run. Every code other than 0 comes with an error.
func Run(ctx context.Context, cfg Config) (code int, err error) {
	caught := catchSignals()
	// If the child is killed, this process has to end the child's processes.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 1, fmt.Errorf("becoming a reaper of orphans: %w", err)
	}
	if err := hostsock.DropBindCapability(); err != nil {
		return 1, err
	}
	// One context ends everything; the user sees its cause.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(errEnded)
	r := &run{cfg: &cfg, cancel: cancel, inherited: inheritedSockets(cfg.Inherited), stops: make(chan struct{})}
	go r.handleSignals(ctx, caught)
	if r.state, err = openStateDir(ctx, cfg.StateDir, cfg.Log); err != nil {
		return 1, err
	}
	defer r.removeState()
	if err = r.start(ctx); err == nil {
		code, err = r.awaitEnd(ctx)
	} else {
		code = 1
	}
	r.notify("STOPPING=1")
	cancel(errEnded)
	return code, errors.Join(err, r.end())
}

// removeState removes the state directory. If a part of it cannot be removed,
// the run has not failed: the exit code is the command's.
func (r *run) removeState() {
	if err := r.state.remove(); err != nil {
		r.cfg.Log.Warn("part of the state directory could not be removed", "error", err)
	}
}

// errEnded is the cause of a context that ended normally.
var errEnded = errors.New("the run has ended")

// run has what Run has set up so far.
type run struct {
	cfg    *Config
	state  *stateDir
	cancel context.CancelCauseFunc
	child  *process
	link   driver.Link
	// inherited are the sockets of an activation, for ports that match.
	inherited *hostsock.Inherited
	table     *ports.Table
	// started says that signals go to the command; child is set by then.
	started atomic.Bool
	// stops receives a value each time the command is stopped.
	stops chan struct{}
	// backends counts the goroutines that wait for the drivers, api those that
	// serve the REST API.
	backends, api sync.WaitGroup
}

// handleSignals passes signals to the child; a signal that arrives during the
// set-up ends the run. It also stops this process after the command has
// stopped. The delay is for the copy of the signal that the terminal sends to
// this process.
func (r *run) handleSignals(ctx context.Context, caught <-chan os.Signal) {
	var due <-chan time.Time
	for {
		select {
		case <-r.stops:
			due = time.After(echoWindow)
		case <-due:
			due = nil
			if !r.child.stillStopped(ctx) {
				break
			}
			if err := suspend(); err != nil {
				r.cfg.Log.Warn("the command was stopped, but not this process", "error", err)
			}
		case s := <-caught:
			sig := s.(syscall.Signal)
			switch {
			case r.started.Load():
				r.child.signal(ctx, sig)
			case sig == unix.SIGINT, sig == unix.SIGTERM, sig == unix.SIGHUP, sig == unix.SIGQUIT:
				r.cancel(fmt.Errorf("interrupted during the start: signal: %v", sig))
			}
		case <-ctx.Done():
			return
		}
	}
}

// inheritedSockets returns the sockets that socket activation passed to this process.
func inheritedSockets(fds []int) *hostsock.Inherited {
	if !activatedParent() {
		return hostsock.NewInherited(nil)
	}
	return hostsock.NewInherited(activationFDs(fds, os.Getenv(listenFDs)))
}

// start does everything up to the start of the command.
func (r *run) start(ctx context.Context) (err error) {
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}()
	if r.cfg.DetachNetns {
		if err := r.state.write(netnsName, nil, 0o444); err != nil {
			return fmt.Errorf("making the file for the network namespace: %w", err)
		}
	}
	if r.child, err = spawn(ctx, r.cfg, r.state); err != nil {
		return err
	}
	go func() {
		<-r.child.client.Done()
		r.cancel(errors.New("the child ended before the command was started"))
	}()
	if err := r.connect(ctx); err != nil {
		return err
	}
	if err := r.state.writeChildPID(r.child.pid); err != nil {
		return err
	}
	if err := r.serveAPI(ctx); err != nil {
		return err
	}
	r.started.Store(true)
	if hasTerminal() {
		go r.child.watchStops(ctx, r.stops)
	}
	if err := r.exec(ctx); err != nil {
		// The child reports what is wrong with the command.
		r.cfg.Log.Debug("the command did not start", "error", err)
		return nil
	}
	r.notify("READY=1", fmt.Sprintf("STATUS=Running %s, published ports: %d", r.cfg.Command[0], len(r.cfg.Publish)))
	context.AfterFunc(ctx, trim.Later())
	return nil
}

// exec tells the child to start the command.
func (r *run) exec(ctx context.Context) error {
	req := execRequest{Taken: r.inherited.Seal()}
	supervisor, _ := r.cfg.Ports.(driver.Supervisor)
	if supervisor != nil && r.cfg.joinsNetns() {
		req.Policy = supervisor.Policy()
	}
	reply, fds, err := execMethod.Await(ctx, r.child.client, req)
	switch {
	case err != nil || req.Policy == nil:
		return err
	case len(fds) == 1:
		supervisor.Supervise(fds[0], nil)
	default:
		supervisor.Supervise(-1, errors.New(reply.PolicyError))
	}
	return nil
}

// connect sets up the network and the published ports.
func (r *run) connect(ctx context.Context) error {
	if r.cfg.Network == nil {
		return nil
	}
	sb := r.sandbox()
	var err error
	if r.link, err = r.cfg.Network.Attach(ctx, sb); err != nil {
		return fmt.Errorf("setting up the network %q: %w", r.cfg.NetworkName, err)
	}
	r.supervise("network driver "+r.cfg.NetworkName, r.cfg.Network.Wait)
	if err := r.installEtc(ctx); err != nil {
		return err
	}
	return r.publish(ctx, sb)
}

func (r *run) sandbox() driver.Sandbox {
	path := fmt.Sprintf("/proc/%d/ns/net", r.child.pid)
	if r.cfg.DetachNetns {
		path = filepath.Join(fmt.Sprintf("/proc/%d/root", r.child.pid), r.state.file(netnsName))
	}
	return driver.Sandbox{
		PID:       r.child.pid,
		NetnsPath: path,
		StateDir:  r.state.path,
		Detached:  r.cfg.DetachNetns,
		Inherited: r.inherited,
		Child:     r.child.client,
		Log:       r.cfg.Log,
	}
}

// supervise ends the run when a backend dies.
func (r *run) supervise(what string, wait func() error) {
	r.backends.Go(func() {
		if err := wait(); err != nil {
			r.cancel(fmt.Errorf("the %s has ended: %w", what, err))
		}
	})
}

func (r *run) installEtc(ctx context.Context) error {
	names, err := writeEtcFiles(r.state, r.link)
	if err != nil || len(names) == 0 || r.cfg.DetachNetns {
		return err
	}
	_, _, err = etcMethod.Call(ctx, r.child.client, etcRequest{Files: names})
	return err
}

func (r *run) publish(ctx context.Context, sb driver.Sandbox) error {
	if r.cfg.Ports == nil {
		return nil
	}
	r.table = ports.New(r.cfg.Ports)
	sb.Table = r.table
	if err := r.cfg.Ports.Start(ctx, sb, r.link); err != nil {
		return fmt.Errorf("starting the port driver: %w", err)
	}
	r.supervise("port driver", r.cfg.Ports.Wait)
	for _, spec := range r.cfg.Publish {
		if err := publish(ctx, r.table, spec); err != nil {
			return err
		}
	}
	return nil
}

func publish(ctx context.Context, table *ports.Table, spec api.PortSpec) error {
	if _, err := table.Publish(ctx, spec); err != nil {
		return fmt.Errorf("failed to expose port %s: %w", spec, err)
	}
	return nil
}

// serveAPI serves api.sock, which clients expect to answer before the command starts.
func (r *run) serveAPI(ctx context.Context) error {
	l, err := r.state.listen(ctx, "api.sock")
	if err != nil {
		return err
	}
	r.serve(ctx, l, apiserver.New(apiserver.Config{Info: r.info, Ports: r.table, Log: r.cfg.Log}))
	serving, ok := r.cfg.Ports.(driver.Serving)
	if !ok || serving.Socket() == "" {
		return nil
	}
	if l, err = unixsock.Listen(ctx, serving.Socket()); err != nil {
		return fmt.Errorf("the port driver's API: %w", err)
	}
	r.serve(ctx, l, apiserver.New(apiserver.Config{Handler: serving.Handler(), Log: r.cfg.Log}))
	return nil
}

func (r *run) serve(ctx context.Context, l net.Listener, srv *apiserver.Server) {
	r.api.Go(func() {
		if err := srv.Serve(ctx, l); err != nil {
			r.cancel(fmt.Errorf("the API server has ended: %w", err))
		}
	})
}

// awaitEnd waits for the child, or for a reason to end it.
func (r *run) awaitEnd(ctx context.Context) (int, error) {
	select {
	case <-r.child.exited:
		return exitCode(r.child.status)
	case <-ctx.Done():
	}
	// The end of the wire comes shortly before the end of the child.
	select {
	case <-r.child.client.Done():
		<-r.child.exited
		return exitCode(r.child.status)
	default:
		return 1, context.Cause(ctx)
	}
}

func exitCode(status syscall.WaitStatus) (int, error) {
	switch {
	case status.Signaled():
		killDescendants() // the child can no longer kill them
		return killedCode, fmt.Errorf("child exited: signal: %s", status.Signal())
	case status.ExitStatus() != 0:
		return status.ExitStatus(), fmt.Errorf("child exited: exit status %d", status.ExitStatus())
	}
	return 0, nil
}

// end closes everything that start has set up, after the end of the context.
func (r *run) end() error {
	var err error
	if r.child != nil {
		r.child.stop()
	}
	r.api.Wait() // a request in progress may still publish
	if r.table != nil {
		err = r.table.CloseAll()
	}
	r.backends.Wait()
	return err
}
