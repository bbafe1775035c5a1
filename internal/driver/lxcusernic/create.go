package lxcusernic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/netns"
	"rootlesskit/internal/wire"
)

// usualPlaces are the directories in which distributions install the program,
// since it is not on PATH.
var usualPlaces = []string{
	"/usr/libexec/lxc/lxc-user-nic",
	"/usr/lib/lxc/lxc-user-nic",
	"/usr/lib/*/lxc/lxc-user-nic",
}

// findBinary looks up the program. It returns the error of package exec
// unchanged.
func findBinary(name string) (string, error) {
	if name != "" {
		return exec.LookPath(name)
	}
	path, err := exec.LookPath(Name)
	if err == nil {
		return path, nil
	}
	for _, pattern := range usualPlaces {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return exec.LookPath(found[0])
		}
	}
	return "", err
}

// createTimeout is more than the program takes, even on a busy machine.
const createTimeout = 20 * time.Second

// create runs the program, which makes the pair of interfaces.
func (n *Network) create(ctx context.Context) error {
	pid := n.sb.PID
	if n.sb.Detached {
		release, tid, err := n.holdThread(ctx)
		if err != nil {
			return err
		}
		defer release()
		pid = tid
	}
	ctx, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, n.binary, "create", n.sb.StateDir, "rootlesskit", strconv.Itoa(pid), "veth", n.bridge, n.cfg.Ifname)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s could not connect the namespace to the bridge %q: %w: %s (%s)", n.binary, n.bridge, err, oneLine(out), n.hint())
	}
	return nil
}

func oneLine(out []byte) string { return strings.Join(strings.Fields(string(out)), " ") }

// hint says which requirement is missing, as far as it can be checked.
func (n *Network) hint() string {
	if _, err := net.InterfaceByName(n.bridge); err != nil {
		return fmt.Sprintf("there is no bridge %q in the host: start lxc-net, or choose another one with --lxc-user-nic-bridge", n.bridge)
	}
	name := strconv.Itoa(os.Getuid())
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	return fmt.Sprintf("/etc/lxc/lxc-usernet needs a line such as %q, and %s the setuid bit", fmt.Sprintf("%s veth %s 10", name, n.bridge), n.binary)
}

const holdMethod wire.Method[wire.None, wire.None] = "lxcusernic.hold"

// holdThread keeps a thread of the child in the detached namespace until release
// is called: the program identifies the namespace by a process in it, and
// accepts a thread.
func (n *Network) holdThread(ctx context.Context) (release func(), tid int, err error) {
	_, fds, err := holdMethod.Call(ctx, n.sb.Child, wire.None{})
	release = func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
	if err == nil {
		tid, err = threadIn(n.sb.PID, n.sb.NetnsPath)
	}
	if err != nil {
		release()
		return nil, 0, fmt.Errorf("finding a thread in the network namespace: %w", err)
	}
	return release, tid, nil
}

// threadIn returns the ID of a thread of the process in the namespace.
func threadIn(pid int, netnsPath string) (int, error) {
	want, err := os.Stat(netnsPath)
	if err != nil {
		return 0, err
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return 0, err
	}
	for _, thread := range threads {
		has, err := os.Stat(fmt.Sprintf("/proc/%d/task/%s/ns/net", pid, thread.Name()))
		if err == nil && os.SameFile(want, has) {
			return strconv.Atoi(thread.Name())
		}
	}
	return 0, errors.New("there is none")
}

// hold replies when a thread is in the namespace. The thread stays there until
// the returned descriptor is closed.
func (h handlers) hold(context.Context, wire.None) (none wire.None, fds []int, err error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return none, nil, fmt.Errorf("pipe2: %w", err)
	}
	entered := make(chan error, 1)
	go func() {
		defer unix.Close(pipe[0])
		err := h.netns.Do(func() error {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			entered <- nil
			for {
				if _, err := unix.Read(pipe[0], make([]byte, 1)); err != unix.EINTR {
					return nil
				}
			}
		})
		if err != nil {
			entered <- err
		}
	}()
	if err := <-entered; err != nil {
		unix.Close(pipe[1])
		return none, nil, err
	}
	return none, []int{pipe[1]}, nil
}

// handlers are the driver's state inside the child.
type handlers struct{ netns *netns.Namespace }

// Handlers returns the handlers of the driver's methods, for the child.
func Handlers(_ context.Context, ns *netns.Namespace) wire.Handlers {
	h := handlers{ns}
	all := wire.Handlers{}
	holdMethod.Handle(all, h.hold)
	askMethod.Handle(all, h.ask)
	dropMethod.Handle(all, h.drop)
	return all
}
