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

// Listener is what the child has found to listen at an address.
type Listener struct {
	// Age is for how long it has been known; negative: nobody listens.
	Age time.Duration
	// Proxy is not nil where it is a userland proxy.
	Proxy *Proxy
}

// Proxy is a userland proxy.
type Proxy struct {
	// Container is where it leads; invalid where that may not be connected to
	// directly, for the reason of Problem.
	Container netip.AddrPort
	Problem   string

	process *os.File // a pidfd; nil on a kernel without
}

// Find asks the child who listens at an address of the namespace. proto is
// unix.IPPROTO_TCP or unix.IPPROTO_UDP. The Proxy is to be closed.
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

// verify checks the answer of a child that may have become the command's. What it
// calls a container is connected to from its own namespace.
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

// maxProblem bounds the text of one.
const maxProblem = 1 << 10

// isPidfd reports whether a descriptor is one of a process: to poll another kind may
// take as long as its maker likes. The link of no file looks like it.
func isPidfd(fd int) bool {
	link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	return err == nil && (link == "anon_inode:[pidfd]" || strings.HasPrefix(link, "pidfd:["))
}

// Alive reports whether the proxy's process has not ended, as far as the kernel
// tells. It does not block, and may be called while Close is.
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

// Close forgets the proxy, which nil may be.
func (p *Proxy) Close() {
	if p != nil && p.process != nil {
		p.process.Close()
	}
}
