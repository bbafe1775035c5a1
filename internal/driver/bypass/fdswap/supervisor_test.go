package fdswap

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/kernel"
	"rootlesskit/internal/nstest"
	"rootlesskit/internal/seccomp"
)

// The main thread, which does not end with its goroutine, has no filter.
func init() { runtime.LockOSThread() }

// TestMain runs a program where the environment says so: never a test, from which
// another one would be started.
func TestMain(m *testing.M) {
	if env, ok := os.LookupEnv(programEnv); ok {
		os.Exit(runProgram(env))
	}
	nstest.Main(m)
}

// supervisor runs a program in a network namespace of its own and answers its
// calls.
type supervisor struct {
	*exec.Cmd
	input  io.WriteCloser
	lines  chan string
	swaps  chan swapped
	answer func(seccomp.Call)
	// interrupted says that swaps end after the first descriptor, and are finished.
	interrupted bool
	old         []*Socket // that were looked at: they stay open, as those of the port driver do
}

// swapped is what came of a bind: the address of the new socket, or why there is
// none.
type swapped struct {
	addr  netip.AddrPort
	inode uint64
	pid   int
	fd    int
	err   error
}

// supervise starts a program. answer is nil where its binds get a socket of the
// test's own network namespace.
func supervise(t *testing.T, policy seccomp.Policy, name, network string, answer func(seccomp.Call)) *supervisor {
	t.Helper()
	nstest.Needs(t, kernel.Notifications, kernel.PidfdGetfd, kernel.NetnsCookie)
	if err := seccomp.Probe(); err != nil {
		t.Skip(err)
	}
	if strings.HasSuffix(network, "6") {
		nstest.Needs(t, kernel.IPv6)
	}
	failOnLeaks(t)
	s := &supervisor{lines: make(chan string, 100), swaps: make(chan swapped, 100), answer: answer, interrupted: name == "interrupted"}
	if answer == nil {
		s.answer = s.swap
	}
	s.Cmd = exec.CommandContext(t.Context(), "/proc/self/exe")
	// Go's runtime would interrupt epoll_wait(2), and connect(2).
	s.Env = append(os.Environ(), programEnv+"="+name+"/"+network, "GODEBUG=asyncpreemptoff=1")
	s.Stderr = os.Stderr
	s.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	var err error
	if s.input, err = s.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	output, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.serve(t, s.startFiltered(t, policy), output)
	return s
}

// startFiltered starts the program under a filter and returns its listener.
func (s *supervisor) startFiltered(t *testing.T, policy seccomp.Policy) *seccomp.Listener {
	t.Helper()
	fd := -1
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // it ends with the goroutine: its filter is not this process's
		err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		if err == nil {
			fd, err = seccomp.Install(policy)
		}
		if err == nil {
			err = s.Start()
		}
		started <- err
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	l, err := seccomp.NewListener(fd)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serve answers calls and reads lines until the test has ended.
func (s *supervisor) serve(t *testing.T, l *seccomp.Listener, output io.Reader) {
	var work sync.WaitGroup
	work.Go(func() {
		for {
			call, err := l.Receive()
			if err != nil {
				return
			}
			s.answer(call)
		}
	})
	work.Go(func() {
		defer close(s.lines)
		for lines := bufio.NewScanner(output); lines.Scan(); {
			s.lines <- lines.Text()
		}
	})
	t.Cleanup(func() {
		_ = s.Process.Kill()
		s.input.Close()
		l.Stop()
		work.Wait()
		_ = s.Wait()
		l.Close()
		for _, old := range s.old {
			old.Close()
		}
	})
}

// swap answers a bind by a swap. Where that fails the kernel binds.
func (s *supervisor) swap(call seccomp.Call) {
	if ofNetlink(call) {
		call.Continue()
		return
	}
	result := swapped{fd: call.FD}
	result.err = s.trySwap(call, &result)
	if result.err != nil {
		call.Continue()
	}
	s.swaps <- result
}

// ofNetlink reports whether the program is not in what it is for yet.
func ofNetlink(call seccomp.Call) bool {
	address, err := call.Sockaddr()
	return err == nil && len(address) >= 2 && binary.NativeEndian.Uint16(address) == unix.AF_NETLINK
}

func (s *supervisor) trySwap(call seccomp.Call, r *swapped) error {
	caller, old, err := look(call)
	if err != nil {
		return err
	}
	s.old = append(s.old, old)
	defer caller.Close()
	r.pid = caller.PID
	if err := caller.CheckSole(old); err != nil {
		return err
	}
	front, err := r.newSocket(old)
	if err != nil {
		return err
	}
	defer unix.Close(front)
	swap, err := caller.Prepare(old, front)
	if err != nil {
		return err
	}
	defer swap.Close()
	if s.interrupted {
		swap.descriptors = swap.descriptors[:1]
	}
	if err := swap.Do(); err != nil {
		return err
	}
	if s.interrupted {
		if err := caller.Finish(old.Inode, front); err != nil {
			return err
		}
	}
	return call.Return(0)
}

// look opens a caller and its socket.
func look(call seccomp.Call) (*Caller, *Socket, error) {
	caller, err := Open(call)
	if err != nil {
		return nil, nil, err
	}
	err = caller.ReadStatus()
	var s *Socket
	if err == nil {
		s, err = caller.Socket(call.FD)
	}
	if err != nil {
		caller.Close()
	}
	return caller, s, err
}

// newSocket is like the old one, at an address of this network namespace.
func (r *swapped) newSocket(old *Socket) (int, error) {
	fd, err := unix.Socket(old.Family, old.Type|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	var addr unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	if old.Family == unix.AF_INET6 {
		addr = &unix.SockaddrInet6{Addr: [16]byte{15: 1}}
	}
	if err = unix.Bind(fd, addr); err == nil {
		addr, err = unix.Getsockname(fd)
	}
	if err == nil {
		r.inode, err = Inode(fd)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	switch a := addr.(type) {
	case *unix.SockaddrInet4:
		r.addr = netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		r.addr = netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return fd, nil
}

// generous is for what happens at once on an idle machine.
const generous = time.Minute

// line is the next one that the program says.
func (s *supervisor) line(t *testing.T) string {
	t.Helper()
	select {
	case line, ok := <-s.lines:
		if !ok {
			t.Fatal("the program has ended")
		}
		return line
	case <-time.After(generous):
		t.Fatalf("the program says nothing within %v", generous)
	}
	return ""
}

func (s *supervisor) expect(t *testing.T, want string) {
	t.Helper()
	if got := s.line(t); got != want {
		t.Fatalf("the program says %q, want %q", got, want)
	}
}

// swapped is what came of the next bind.
func (s *supervisor) swapped(t *testing.T) swapped {
	t.Helper()
	select {
	case r := <-s.swaps:
		return r
	case <-time.After(generous):
		t.Fatalf("the program binds nothing within %v", generous)
	}
	return swapped{}
}

// goOn ends a pause of the program.
func (s *supervisor) goOn(t *testing.T) {
	t.Helper()
	if _, err := fmt.Fprintln(s.input); err != nil {
		t.Fatal(err)
	}
}

// ask is a client of the program, in the test's own network namespace.
func (s *supervisor) ask(t *testing.T, network string, addr netip.AddrPort) {
	t.Helper()
	c, err := net.Dial(network, addr.String())
	if err != nil {
		t.Fatalf("%v; the program says %q", err, s.line(t))
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(generous))
	if _, err := c.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "ping" {
		t.Fatalf("the answer is %q, %v; the program says %q", b, err, s.line(t))
	}
}

// failOnLeaks fails a test that leaves descriptors open, pidfds too.
func failOnLeaks(t *testing.T) {
	before := nstest.OpenFDs()
	t.Cleanup(func() {
		const closing = 10 * time.Second
		for deadline := time.Now().Add(closing); ; time.Sleep(time.Millisecond) {
			leaked := map[string]string{}
			for fd, link := range nstest.OpenFDs() {
				if before[fd] == "" {
					leaked[fd] = link
				}
			}
			if len(leaked) == 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Errorf("descriptors were left open: %v", leaked)
				return
			}
		}
	})
}
