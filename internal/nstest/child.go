package nstest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/netns"
	"rootlesskit/internal/wire"
)

// Child is a process in its own user, network and mount namespaces that answers
// calls, like the launcher's child. It ends with the test.
type Child struct {
	*wire.Client
	PID int
}

// NewChild starts a child.
func NewChild(t testing.TB) *Child {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	return start(t, cmd)
}

// NewChildBy starts a child through a program that executes its arguments, such as
// nsenter or unshare. The child must be root of its network namespace.
func NewChildBy(t testing.TB, prefix ...string) *Child {
	t.Helper()
	c := start(t, Self(t, prefix...))
	if _, err := c.Call(t.Context(), helloMethod, nil, nil); err != nil {
		t.Fatalf("starting a child by %q: %v", prefix, err)
	}
	return c // which is in its namespaces now
}

// Self returns a command that executes this program through another one, which may
// enter namespaces in which this program's path does not exist. Files added to
// ExtraFiles get descriptors from 4 on.
func Self(t testing.TB, prefix ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { self.Close() })
	cmd := exec.Command(prefix[0], append(prefix[1:], "/proc/self/fd/3")...)
	cmd.ExtraFiles = []*os.File{self}
	return cmd
}

func start(t testing.TB, cmd *exec.Cmd) *Child {
	t.Helper()
	conn, childEnd, err := wire.Pair()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = append(cmd.ExtraFiles, childEnd)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", childEnv, 2+len(cmd.ExtraFiles)))
	cmd.Stderr = os.Stderr
	err = cmd.Start()
	childEnd.Close()
	if err != nil {
		conn.Close()
		t.Fatalf("starting a child in new namespaces: %v", err)
	}
	c := &Child{Client: wire.NewClient(conn), PID: cmd.Process.Pid}
	t.Cleanup(func() {
		c.Client.Close() // the end of file ends the child
		_ = cmd.Wait()
	})
	return c
}

// NetnsPath names the child's network namespace.
func (c *Child) NetnsPath() string { return fmt.Sprintf("/proc/%d/ns/net", c.PID) }

type listenRequest struct {
	Network string `json:"network"`
	Address string `json:"address"`
}

const (
	listenMethod = "nstest.listen"
	helloMethod  = "nstest.hello"
)

func testHandlers(ns *netns.Namespace) wire.Handlers {
	return wire.Handlers{
		helloMethod: func(context.Context, wire.Message) (any, []int, error) { return nil, nil, nil },
		listenMethod: func(_ context.Context, msg wire.Message) (any, []int, error) {
			var req listenRequest
			if err := msg.Decode(&req); err != nil {
				return nil, nil, err
			}
			fd := -1
			err := ns.Do(func() (err error) {
				fd, err = listenFD(req)
				return err
			})
			if err != nil {
				return nil, nil, err
			}
			return nil, []int{fd}, nil
		},
	}
}

// listenFD opens a socket with package net and returns a duplicate of it.
func listenFD(req listenRequest) (int, error) {
	var socket interface {
		File() (*os.File, error)
		Close() error
	}
	switch req.Network {
	case "udp", "udp4", "udp6":
		pc, err := net.ListenPacket(req.Network, req.Address)
		if err != nil {
			return -1, err
		}
		socket = pc.(*net.UDPConn)
	default:
		l, err := net.Listen(req.Network, req.Address)
		if err != nil {
			return -1, err
		}
		socket = l.(*net.TCPListener)
	}
	defer socket.Close()
	f, err := socket.File()
	if err != nil {
		return -1, err
	}
	defer f.Close()
	return unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
}

// listen returns a socket of the namespace. If a server comes back at its address,
// the child may not have closed its copy of the previous socket yet.
func (c *Child) listen(t testing.TB, network, address string) *os.File {
	t.Helper()
	fds, err := c.Call(t.Context(), listenMethod, listenRequest{network, address}, nil)
	for deadline := time.Now().Add(time.Minute); err != nil && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if !strings.Contains(err.Error(), unix.EADDRINUSE.Error()) {
			break
		}
		fds, err = c.Call(t.Context(), listenMethod, listenRequest{network, address}, nil)
	}
	if err != nil {
		t.Fatalf("listen %s %s in the namespace: %v", network, address, err)
	}
	return os.NewFile(uintptr(fds[0]), address)
}

// ListenTCP listens inside the namespace; the test itself accepts. The
// listener is closed with the test.
func (c *Child) ListenTCP(t testing.TB, network, address string) *net.TCPListener {
	t.Helper()
	f := c.listen(t, network, address)
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

// ListenUDP opens a UDP socket inside the namespace.
func (c *Child) ListenUDP(t testing.TB, network, address string) *net.UDPConn {
	t.Helper()
	f := c.listen(t, network, address)
	defer f.Close()
	pc, err := net.FilePacketConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	return pc.(*net.UDPConn)
}
