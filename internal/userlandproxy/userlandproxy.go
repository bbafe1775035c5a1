package userlandproxy

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/wire"
)

// Listener describes what listens at an address, as the child has found it.
type Listener struct {
	// Age is how long it has been known; negative if no process listens.
	Age time.Duration
	// Proxy is the userland proxy, or nil if the listener is not one.
	Proxy *Proxy
}

// Proxy is a userland proxy.
type Proxy struct {
	// Container is where it leads; invalid if the relay may not connect to it
	// directly, for the reason in Problem.
	Container netip.AddrPort
	Problem   string

	process *os.File // a pidfd; nil on a kernel without pidfds
}

// Find asks the child who listens at an address of the namespace. proto is
// unix.IPPROTO_TCP or unix.IPPROTO_UDP. The caller must close the Proxy.
func Find(ctx context.Context, child wire.Caller, proto int, at netip.AddrPort) (Listener, error) {
	var reply answer
	fds, err := child.Call(ctx, findMethod, request{proto, at}, &reply)
	if err != nil {
		return Listener{}, err
	}
	if err := reply.verify(fds); err != nil {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return Listener{}, fmt.Errorf("asking the child who listens at %s: %w", at, err)
	}
	l := Listener{Age: time.Duration(reply.Age) * time.Millisecond}
	if reply.Proxy {
		l.Proxy = &Proxy{Container: reply.Container, Problem: reply.Problem}
		if len(fds) > 0 {
			l.Proxy.process = os.NewFile(uintptr(fds[0]), "pidfd")
		}
	}
	return l, nil
}

// verify checks the answer of a child that the command may have taken over. The
// address of the container needs no further check, since the relay connects to it
// from the child's own namespace.
func (a *answer) verify(fds []int) error {
	const day = 24 * 60 * 60 * 1000
	a.Age = min(a.Age, day)
	a.Problem = a.Problem[:min(len(a.Problem), maxProblem)]
	c := a.Container
	switch {
	case !a.Proxy && (c.IsValid() || len(fds) > 0), len(fds) > 1:
		return fmt.Errorf("got %d descriptors and the container %s without a proxy", len(fds), c)
	case c.IsValid() && (!c.Addr().IsGlobalUnicast() || c.Addr().Is4In6() || c.Port() == 0):
		return fmt.Errorf("%s cannot be a container's address", c)
	}
	for _, fd := range fds {
		if !isPidfd(fd) {
			return fmt.Errorf("the descriptor is not a pidfd")
		}
	}
	return nil
}

// maxProblem bounds the text of a problem.
const maxProblem = 1 << 10

// isPidfd reports whether a descriptor is a pidfd: polling another kind may take as
// long as its creator likes. No file has a link of this form.
func isPidfd(fd int) bool {
	link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	return err == nil && (link == "anon_inode:[pidfd]" || strings.HasPrefix(link, "pidfd:["))
}

// Alive reports whether the proxy's process still runs, as far as the kernel
// shows it. It does not block, and may be called concurrently with Close.
func (p *Proxy) Alive() bool {
	if p.process == nil {
		return true
	}
	raw, err := p.process.SyscallConn()
	if err != nil {
		return false
	}
	alive := false
	err = raw.Control(func(fd uintptr) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		alive = err == nil && n == 0
	})
	return err == nil && alive
}

// Close releases the proxy, which may be nil.
func (p *Proxy) Close() {
	if p != nil && p.process != nil {
		p.process.Close()
	}
}
