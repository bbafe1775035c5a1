package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/caps"
	"rootlesskit/internal/driver"
	"rootlesskit/internal/mounts"
	"rootlesskit/internal/netns"
	"rootlesskit/internal/trim"
	"rootlesskit/internal/wire"
)

// childName is argv[0] of the child. The other arguments are the number of the
// wire's descriptor, the numbers of the inherited descriptors, separated by
// commas, and the command.
const childName = "rootlesskit-child"

// ErrReported is what Child returns for a failure that the parent reports.
var ErrReported = errors.New("reported by the parent")

// IsChild reports whether the program was started as the inner half of a run.
func IsChild(args []string) bool {
	return len(args) > 0 && (args[0] == childName || args[0] == execName)
}

// ChildOptions has what the child does not get from the parent.
type ChildOptions struct {
	// Handlers make the handlers that drivers run inside the child.
	Handlers []driver.ChildHandlers
	// NewLog makes the child's logger.
	NewLog func(debug bool) *slog.Logger
}

// Child is the inner half of a run. It returns the exit code of the command.
func Child(args []string, opts ChildOptions) (int, error) {
	// The thread that starts the command must live as long as the command, which
	// is killed when the thread ends (PR_SET_PDEATHSIG). It is also the thread
	// whose capabilities the command inherits.
	runtime.LockOSThread()
	if args[0] == execName {
		return 1, runStage(args[1:])
	}
	c, err := newChild(args)
	if err != nil {
		return 1, err
	}
	setup, err := c.receiveSetup()
	if errors.Is(err, io.EOF) { // the parent gave up, and says why
		return 1, ErrReported
	}
	if err != nil {
		return 1, err
	}
	c.log = opts.NewLog(setup.Debug)
	if err := c.setUp(); err != nil {
		_ = c.conn.Send(wire.Message{Kind: kindFailed, Error: err.Error()})
		return 1, ErrReported
	}
	if err := c.conn.Send(wire.Message{Kind: kindReady}); err != nil {
		return 1, ErrReported // the parent is gone
	}
	return c.serve(opts.Handlers)
}

type child struct {
	conn      *wire.Conn
	wireFD    int
	inherited []int
	command   []string
	setup     childSetup
	lock      []int // see recvSetup
	state     *childState
	netns     *netns.Namespace
	log       *slog.Logger
	reaper    *reaper
	signals   *signalSorter
	start     chan startRequest
	// isolated says that the command is restricted by a filter and Landlock,
	// unlike this process.
	isolated atomic.Bool
}

// startRequest asks the main thread to start the command.
type startRequest struct {
	execRequest
	done chan started
}

// started is the result.
type started struct {
	reply    execReply
	listener []int
	err      error
}

func newChild(args []string) (*child, error) {
	if len(args) < 4 {
		return nil, fmt.Errorf("%s is started by rootlesskit only", childName)
	}
	fd, err := strconv.Atoi(args[1])
	if err != nil {
		return nil, fmt.Errorf("descriptor of the wire: %w", err)
	}
	inherited, err := splitInts(args[2])
	if err != nil {
		return nil, fmt.Errorf("inherited descriptors: %w", err)
	}
	for _, fd := range inherited {
		unix.CloseOnExec(fd)
	}
	return &child{wireFD: fd, inherited: inherited, command: args[3:], start: make(chan startRequest)}, nil
}

// receiveSetup waits for setup, which arrives once the ids are mapped.
func (c *child) receiveSetup() (childSetup, error) {
	// Wait without receiving: a process without capabilities leaves the message to
	// its next execution.
	if err := awaitReadable(c.wireFD); err != nil {
		return childSetup{}, err
	}
	if err := c.ensureCapable(); err != nil {
		return childSetup{}, err
	}
	unix.CloseOnExec(c.wireFD)
	var err error
	if c.conn, err = wire.NewConn(c.wireFD); err != nil {
		return childSetup{}, err
	}
	return c.recvSetup()
}

func (c *child) recvSetup() (childSetup, error) {
	m, err := c.conn.Recv()
	if err != nil {
		return childSetup{}, fmt.Errorf("waiting for the parent: %w", err)
	}
	if m.Kind != kindSetup {
		return childSetup{}, fmt.Errorf("expected %q from the parent, got %q", kindSetup, m.Kind)
	}
	// The lock of the state directory: it is held until nothing of the run is left, even
	// if the parent is killed.
	c.lock = m.FDs
	err = m.Decode(&c.setup)
	return c.setup, err
}

// serve answers the parent's calls until the command has ended. When the parent
// ends, everything ends.
func (c *child) serve(driverHandlers []driver.ChildHandlers) (int, error) {
	c.signals = newSignalSorter(c.setup.Setsid)
	c.reaper = newReaper()
	c.netns.SetRunner(c.run)
	parentGone := make(chan struct{})
	go func() {
		ctx := context.Background()
		_ = wire.Serve(ctx, c.conn, c.handlers(ctx, driverHandlers))
		close(parentGone)
	}()
	go func() {
		<-parentGone
		killDescendants()
		os.Exit(1)
	}()
	req := <-c.start
	if err := c.state.remember(); err != nil {
		c.log.Warn("files that the command leaves in the state directory may stay", "error", err)
	}
	pid, result := c.startCommand(req.execRequest)
	req.done <- result
	if result.err != nil {
		return 1, c.commandError(result.err)
	}
	defer trim.Later()()
	go c.signals.run(pid)
	status := c.reaper.wait(pid)
	if len(result.listener) > 0 {
		// Processes with the filter cannot live without the parent: their filtered
		// calls would fail, and their sockets have been shut down.
		killDescendants()
	}
	if err := c.state.tidy(); err != nil {
		c.log.Debug("removing what the command left in the state directory", "error", err)
	}
	select {
	case <-parentGone:
		select {} // the command was killed with everything else: let that finish
	default:
		return c.exitCode(status)
	}
}

func (c *child) handlers(ctx context.Context, more []driver.ChildHandlers) wire.Handlers {
	all := c.netns.Handlers()
	for _, m := range more {
		for name, h := range m(ctx, c.netns) {
			all[name] = h
		}
	}
	etcMethod.Handle(all, c.mountEtc)
	execMethod.Handle(all, c.execCommand)
	signalMethod.Handle(all, c.signals.handle)
	stoppedMethod.Handle(all, c.stopped)
	stillStoppedMethod.Handle(all, c.stillStopped)
	return all
}

func (c *child) mountEtc(_ context.Context, req etcRequest) (none wire.None, fds []int, err error) {
	for _, name := range req.Files {
		if err := mounts.Etc(c.state.file(name), filepath.Join("/etc", name)); err != nil {
			return none, nil, err
		}
	}
	return none, nil, nil
}

func (c *child) execCommand(ctx context.Context, asked execRequest) (reply execReply, listener []int, err error) {
	req := startRequest{asked, make(chan started, 1)}
	select {
	case c.start <- req:
		s := <-req.done
		return s.reply, s.listener, s.err
	case <-ctx.Done():
		return reply, nil, ctx.Err()
	}
}

// startCommand runs on the main thread, see Child.
func (c *child) startCommand(req execRequest) (pid int, result started) {
	path, err := exec.LookPath(c.command[0])
	if err != nil {
		return 0, started{err: err}
	}
	env, files := os.Environ(), filesAtSameNumbers(c.inherited)
	s := stage{Activation: c.setup.Activation, Policy: req.Policy}
	if len(req.Taken) > 0 {
		files, env = leaveOut(req.Taken, c.inherited, env)
		s.Activation = getenv(env, listenFDs) != ""
		closeFDs(req.Taken) // otherwise the ports would stay open as long as this process lives
	}
	if s.Activation {
		env = unsetenv(env, listenPIDFDID)
	}
	if err := caps.DropInheritable(); err != nil {
		return 0, started{err: err}
	}
	if !s.needed() {
		pid, err = c.fork(path, c.command, env, files)
		return pid, started{err: err}
	}
	return c.forkStage(s, path, env, files)
}

// forkStage starts the command through a stage.
func (c *child) forkStage(s stage, path string, env []string, files []uintptr) (pid int, result started) {
	conn, end, err := wire.Pair()
	if err != nil {
		return 0, started{err: err}
	}
	defer conn.Close()
	c.isolated.Store(s.Policy != nil && s.Policy.Isolate)
	s.Report = len(files)
	argv, err := s.argv(path, c.command)
	if err == nil {
		pid, err = c.fork("/proc/self/exe", argv, env, append(files, end.Fd()))
	}
	end.Close()
	if err != nil {
		return 0, started{err: err}
	}
	result = awaitStage(conn)
	c.isolated.Store(c.isolated.Load() && len(result.listener) > 0)
	return pid, result
}

// run runs a program for a handler. Next to an isolated command it runs none,
// since the command can mount its own program over it.
func (c *child) run(cmd *exec.Cmd) error {
	if c.isolated.Load() {
		return errors.New("with --disable-host-loopback and native ports, no program is run next to the command")
	}
	return c.reaper.run(cmd)
}

func (c *child) fork(path string, argv, env []string, files []uintptr) (int, error) {
	pid, err := startProcess(path, argv, &syscall.ProcAttr{
		Env:   env,
		Files: files,
		Sys:   &syscall.SysProcAttr{Setsid: c.setup.Setsid, Pdeathsig: syscall.SIGKILL},
	}, c.inherited)
	if err != nil {
		return 0, execError(path, err)
	}
	return pid, nil
}

func (c *child) commandError(err error) error {
	return fmt.Errorf("command %v exited: %w", c.command, err)
}

// killedCode is the exit code for a command that was killed by a signal.
const killedCode = 255

func (c *child) exitCode(status unix.WaitStatus) (int, error) {
	switch {
	case status.Signaled():
		return killedCode, c.commandError(fmt.Errorf("signal: %s", status.Signal()))
	case status.ExitStatus() != 0:
		return status.ExitStatus(), c.commandError(fmt.Errorf("exit status %d", status.ExitStatus()))
	}
	return 0, nil
}

func splitInts(s string) ([]int, error) {
	var out []int
	for part := range strings.SplitSeq(s, ",") {
		if part == "" {
			continue
		}
		n, err := strconv.Atoi(part)
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}
