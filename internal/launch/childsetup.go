package launch

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/caps"
	"rootlesskit/internal/mounts"
	"rootlesskit/internal/netns"
)

// setUp sets up the namespaces. docs/ARCHITECTURE.md shows the order.
func (c *child) setUp() error {
	if err := c.prepareProcess(); err != nil {
		return err
	}
	if err := c.setUpState(); err != nil {
		return err
	}
	if err := c.setUpPropagation(); err != nil {
		return err
	}
	if err := c.setUpNetns(); err != nil {
		return err
	}
	for _, dir := range c.setup.CopyUp {
		if err := mounts.CopyUp(dir); err != nil {
			return err
		}
	}
	if c.setup.MountSys {
		if err := mounts.Sys(); err != nil {
			c.log.Warn("the command sees the network devices of the host in /sys", "error", err)
		}
	}
	if c.setup.MountCgroup2 {
		if err := mounts.Cgroup2(); err != nil {
			return err
		}
	}
	if c.setup.PIDNS {
		c.mountProc()
	}
	return nil
}

// mountProc gives the command a /proc of its PID namespace, as far as the
// kernel allows it.
func (c *child) mountProc() {
	readOnly, err := mounts.Proc()
	switch {
	case err != nil:
		c.log.Warn("the command sees the processes of the host in /proc", "error", err)
	case readOnly:
		c.log.Warn("/proc is read-only, as the host's is: the command cannot set sysctls of its namespaces")
	}
}

func (c *child) prepareProcess() error {
	if c.setup.PIDNS {
		// Set again, since the kernel clears it when the credentials change (prctl(2)).
		if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
			return fmt.Errorf("asking to end with the parent: %w", err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("becoming a reaper of orphans: %w", err)
	}
	return nil
}

func (c *child) setUpState() (err error) {
	c.state, err = openChildState(c.setup.StateDir, c.setup.StateDirID)
	if err != nil || !c.setup.WipeStateDir {
		return err
	}
	if err := c.state.wipe(); err != nil {
		return fmt.Errorf("%s: %w", wipeFailed, err)
	}
	return nil
}

func (c *child) setUpPropagation() error {
	if !mounts.KnownPropagation(c.setup.Propagation) {
		c.log.Warn("ignoring an unknown propagation", "propagation", c.setup.Propagation)
		return nil
	}
	return mounts.SetPropagation(c.setup.Propagation)
}

// setUpNetns finds or creates the network namespace that drivers work in.
func (c *child) setUpNetns() (err error) {
	switch {
	case !c.setup.NewNetns:
		c.netns = netns.Own()
		return nil
	case c.setup.DetachNetns:
		c.netns, err = netns.Create(c.state.file(netnsName))
		if err != nil {
			return err
		}
	default:
		c.netns = netns.Own()
	}
	return c.netns.LoopbackUp()
}

func awaitReadable(fd int) error {
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("waiting for the parent: %w", err)
		}
	}
}

// ensureCapable executes the program again if it has no capabilities. They were
// passed as ambient capabilities, which survive an execution before the ids are
// mapped; but the kernel drops these if the file has capabilities of its own
// (capabilities(7)). Now that this user is root, an execution gains all of
// them.
func (c *child) ensureCapable() error {
	capable, err := caps.Effective(unix.CAP_SYS_ADMIN)
	if err != nil || capable {
		return err
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("the user id in the new user namespace is %d, expected 0", os.Geteuid())
	}
	for _, fd := range c.inherited {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("passing descriptor %d on: %w", fd, err)
		}
	}
	return fmt.Errorf("executing again for capabilities: %w", unix.Exec("/proc/self/exe", os.Args, os.Environ()))
}
