package fdswap

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/kernel"
	"rootlesskit/internal/nstest"
	"rootlesskit/internal/seccomp"
)

var networks = []string{"tcp4", "tcp6", "udp4", "udp6"}

// TestSwap has servers get a socket of another network namespace, where their
// clients are.
func TestSwap(t *testing.T) {
	for _, name := range []string{"serve", "epoll", "duplicate", "interrupted", "thread", "own table"} {
		for _, network := range networks {
			t.Run(name+" "+network, func(t *testing.T) {
				if name == "own table" {
					nstest.Needs(t, kernel.ThreadPidfd)
				}
				s := supervise(t, seccomp.Policy{}, name, network, nil)
				r := s.swapped(t)
				if r.err != nil {
					t.Fatal(r.err)
				}
				s.expect(t, "swapped: true")
				s.ask(t, network, r.addr)
			})
		}
	}
}

// TestOptions: the new socket has the options and flags of the old one.
func TestOptions(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			s := supervise(t, seccomp.Policy{}, "options", network, nil)
			if r := s.swapped(t); r.err != nil {
				t.Fatal(r.err)
			}
			s.expect(t, "swapped: true")
			for line := s.line(t); line != "compared"; line = s.line(t) {
				t.Error(line)
			}
		})
	}
}

// TestShared: a socket that another process has too is left alone, and the error
// names the process.
func TestShared(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			s := supervise(t, seccomp.Policy{}, "share", network, nil)
			var inside int
			if _, err := fmt.Sscanf(s.line(t), "shared with PID %d", &inside); err != nil {
				t.Fatal(err)
			}
			s.goOn(t)
			want := fmt.Sprintf("the server's socket is also another process's (PID %d)", inside)
			if r := s.swapped(t); r.err == nil || r.err.Error() != want {
				t.Errorf("%v, want %s", r.err, want)
			}
			s.expect(t, "swapped: false")
		})
	}
}

// TestNoSocket: what is no socket is left to the kernel.
func TestNoSocket(t *testing.T) {
	s := supervise(t, seccomp.Policy{}, "no socket", "tcp4", nil)
	for _, want := range []string{"file: " + unix.ENOTSOCK.Error(), "closed: " + unix.EBADF.Error()} {
		if r := s.swapped(t); !errors.Is(r.err, ErrNoSocket) {
			t.Errorf("%v, want %v", r.err, ErrNoSocket)
		}
		s.expect(t, want)
	}
}

// TestKilledCaller: a swap of what has ended fails.
func TestKilledCaller(t *testing.T) {
	calls := make(chan seccomp.Call)
	s := supervise(t, seccomp.Policy{}, "serve", "tcp4", func(c seccomp.Call) {
		if ofNetlink(c) {
			c.Continue()
		} else {
			calls <- c
		}
	})
	call := <-calls
	caller, old, err := look(call)
	if err != nil {
		t.Fatal(err)
	}
	defer caller.Close()
	defer old.Close()
	front, err := (&swapped{}).newSocket(old)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(front)
	swap, err := caller.Prepare(old, front)
	if err != nil {
		t.Fatal(err)
	}
	defer swap.Close()
	if err := s.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for range s.lines { // until its standard output is closed, by its end
	}
	if err := swap.Do(); err == nil {
		t.Error("the socket of a process that has ended was replaced")
	}
	if c, err := Open(call); err == nil {
		c.Close()
		t.Error("a process that has ended was opened")
	}
}

// TestShutDown: a server whose socket is shut down notices, and holds it until its
// end.
func TestShutDown(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6"} {
		t.Run(network, func(t *testing.T) {
			s := supervise(t, seccomp.Policy{}, "serve", network, nil)
			r := s.swapped(t)
			if r.err != nil {
				t.Fatal(r.err)
			}
			s.expect(t, "swapped: true")
			if !Holds(r.pid, r.fd, r.inode) || Holds(r.pid, r.fd, r.inode+1) || Holds(os.Getpid(), r.fd, r.inode) {
				t.Errorf("descriptor %d of process %d is not socket %d alone", r.fd, r.pid, r.inode)
			}
			ShutDown(map[uint64]bool{r.inode: true})
			if got := s.line(t); !strings.HasSuffix(got, "accept: "+unix.EINVAL.Error()) {
				t.Errorf("the program says %q", got)
			}
		})
	}
}

// TestConnect makes connections in place of a program that Landlock keeps from it.
func TestConnect(t *testing.T) {
	nstest.Needs(t, kernel.LandlockTCP)
	const refused = "connection refused"
	for _, network := range []string{"tcp4", "tcp6"} {
		t.Run(network, func(t *testing.T) {
			s := supervise(t, seccomp.Policy{Isolate: true}, "connect", network, connectFor)
			s.expect(t, "port 80, nonblocking false: connected")
			s.expect(t, "port 80, nonblocking true: in progress")
			s.expect(t, "port 81, nonblocking false: "+refused)
			if got := s.line(t); got != "port 81, nonblocking true: in progress" && got != "port 81, nonblocking true: "+refused {
				t.Errorf("the program says %q", got)
			}
		})
		t.Run(network+" full", func(t *testing.T) {
			s := supervise(t, seccomp.Policy{Isolate: true}, "wait", network, connectFor)
			s.expect(t, "waited: in progress")
		})
	}
}

// connectFor answers a connect, and leaves a bind to the kernel.
func connectFor(call seccomp.Call) {
	if !call.Connect {
		call.Continue()
		return
	}
	_ = call.Return(connected(call))
}

func connected(call seccomp.Call) unix.Errno {
	address, err := call.Sockaddr()
	if err != nil {
		return unix.EFAULT
	}
	caller, s, err := look(call)
	if err != nil {
		return unix.ENOMEM
	}
	defer caller.Close()
	defer s.Close()
	errno, connecting := caller.Connect(s, address)
	if connecting != nil {
		errno = connecting.Await()
	}
	return errno
}
