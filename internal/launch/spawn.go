package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/caps"
	"rootlesskit/internal/userns"
	"rootlesskit/internal/wire"
)

// process is the child, seen from the parent.
type process struct {
	pid    int
	conn   *wire.Conn
	client *wire.Client  // set once the child serves calls
	exited chan struct{} // closed after status was set
	status syscall.WaitStatus
}

// spawn starts the child in its new namespaces and sends it the setup.
func spawn(ctx context.Context, cfg *Config, state *stateDir) (*process, error) {
	ids, err := idMap(ctx, cfg)
	if err != nil {
		return nil, err
	}
	p, err := startChild(cfg, state.path)
	if err != nil {
		return nil, err
	}
	if err := p.handshake(ctx, cfg, state, ids); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

func idMap(ctx context.Context, cfg *Config) (userns.IDMap, error) {
	u, err := userns.CurrentUser()
	if err != nil {
		return userns.IDMap{}, err
	}
	sub, err := userns.LookupSubIDs(ctx, cfg.SubIDSource, u)
	if err != nil {
		return userns.IDMap{}, fmt.Errorf("failed to setup UID/GID map: %w", err)
	}
	ids := userns.NewIDMap(os.Getuid(), os.Getgid(), sub)
	for _, s := range ids.Skipped {
		cfg.Log.Warn("skipping a " + s)
	}
	if ids.SingleID() {
		cfg.Log.Warn("no subordinate ids for the user in /etc/subuid and /etc/subgid: only the user's own id is mapped", "user", u.Username)
	}
	return ids, nil
}

// startChild executes this program as the child.
func startChild(cfg *Config, stateDir string) (*process, error) {
	conn, childEnd, err := wire.Pair()
	if err != nil {
		return nil, err
	}
	defer childEnd.Close()
	files := filesAtSameNumbers(cfg.Inherited)
	wireFD := len(files)
	files = append(files, childEnd.Fd())
	argv := append([]string{childName, strconv.Itoa(wireFD), joinInts(cfg.Inherited)}, cfg.Command...)
	attr := &syscall.ProcAttr{Env: childEnviron(cfg, stateDir), Files: files, Sys: namespaces(cfg)}

	p := &process{conn: conn, exited: make(chan struct{})}
	if err := p.start(argv, attr, cfg.Inherited); err != nil {
		conn.Close()
		return nil, cloneError(err)
	}
	return p, nil
}

// namespaces asks for the namespaces of a run. Ambient capabilities survive the
// child's execution, which happens before its ids are mapped.
func namespaces(cfg *Config) *syscall.SysProcAttr {
	flags := uintptr(unix.CLONE_NEWUSER | unix.CLONE_NEWNS)
	for flag, wanted := range map[uintptr]bool{
		unix.CLONE_NEWNET:    cfg.joinsNetns(),
		unix.CLONE_NEWPID:    cfg.PIDNS,
		unix.CLONE_NEWCGROUP: cfg.CgroupNS,
		unix.CLONE_NEWUTS:    cfg.UTSNS,
		unix.CLONE_NEWIPC:    cfg.IPCNS,
	} {
		if wanted {
			flags |= flag
		}
	}
	attr := &syscall.SysProcAttr{Cloneflags: flags, AmbientCaps: caps.All()}
	if cfg.PIDNS {
		// The kernel ends every process of a PID namespace with its first process.
		// Otherwise the child must live a moment longer, to end the processes below
		// it.
		attr.Pdeathsig = syscall.SIGKILL
	}
	return attr
}

func cloneError(err error) error {
	hint := ""
	switch {
	case errors.Is(err, unix.ENOSPC):
		hint = " (see the sysctls user.max_user_namespaces and user.max_*_namespaces)"
	case errors.Is(err, unix.EPERM):
		hint = " (see the sysctls kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns)"
	case errors.Is(err, unix.EBADF):
		hint = " (a descriptor for the command may be above the limit of open files, ulimit -n)"
	}
	return fmt.Errorf("starting the child in new namespaces: %w%s", err, hint)
}

// childEnviron returns the environment, with the variables that clients read
// from /proc/PID/environ.
func childEnviron(cfg *Config, stateDir string) []string {
	env := setenv(os.Environ(), "ROOTLESSKIT_STATE_DIR", stateDir)
	if cfg.NotifySocket != "" {
		env = unsetenv(env, notifySocket)
	}
	env = setenv(env, "ROOTLESSKIT_PARENT_EUID", strconv.Itoa(os.Geteuid()))
	return setenv(env, "ROOTLESSKIT_PARENT_EGID", strconv.Itoa(os.Getegid()))
}

// handshake maps the ids, sends the setup, and waits until the child has done it.
func (p *process) handshake(ctx context.Context, cfg *Config, state *stateDir, ids userns.IDMap) error {
	stop := context.AfterFunc(ctx, func() { p.conn.Close() })
	defer stop()
	if err := p.writeIDMap(ctx, cfg, ids); err != nil {
		return err
	}
	if err := evacuateCgroup2(cfg.EvacuateCgroup2); err != nil {
		return err
	}
	if err := p.conn.SendBody(kindSetup, newChildSetup(cfg, state), int(state.lock.Fd())); err != nil {
		return fmt.Errorf("the child ended before it was set up: %w", err)
	}
	if err := awaitReady(p.conn); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	p.client = wire.NewClient(p.conn)
	return nil
}

// writeIDMap maps the ids. newuidmap(1) refuses a user that is in no database,
// but the user's own id can still be mapped.
func (p *process) writeIDMap(ctx context.Context, cfg *Config, ids userns.IDMap) error {
	err := ids.Write(ctx, p.pid)
	if err == nil || ids.SingleID() || ctx.Err() != nil {
		return err
	}
	if userns.InPasswd(os.Getuid()) {
		return err
	}
	cfg.Log.Warn("only the user's own id is mapped", "error", err)
	return ids.Single().Write(ctx, p.pid)
}

// start starts the child and waits for its status, both on one thread: the child's
// PR_SET_PDEATHSIG refers to the thread that started it, so this thread must live
// as long as the child.
func (p *process) start(argv []string, attr *syscall.ProcAttr, inherited []int) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var err error
		p.pid, err = startProcess("/proc/self/exe", argv, attr, inherited)
		started <- err
		if err == nil {
			p.wait()
		}
	}()
	return <-started
}

// wait collects the child's status.
func (p *process) wait() {
	defer close(p.exited)
	for {
		_, err := syscall.Wait4(p.pid, &p.status, 0, nil)
		if err != syscall.EINTR {
			return
		}
	}
}

// stop ends the child, and with it everything that runs below it, and waits for
// the end.
func (p *process) stop() {
	if p.client != nil {
		p.client.Close()
	} else {
		p.conn.Close()
	}
	<-p.exited
}

func joinInts(ints []int) string {
	var parts []string
	for _, n := range ints {
		parts = append(parts, strconv.Itoa(n))
	}
	return strings.Join(parts, ",")
}
