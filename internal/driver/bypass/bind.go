package bypass

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/driver/bypass/fdswap"
	"rootlesskit/internal/hostsock"
	"rootlesskit/internal/seccomp"
	"rootlesskit/internal/userlandproxy"
)

// bind is a bind(2) of a published port.
type bind struct {
	seccomp.Call
	raw  []byte
	addr netip.AddrPort
	// netns is the cookie of the network namespace that the port leads to.
	netns uint64

	caller *fdswap.Caller
	socket *fdswap.Socket
	bound  bool // whether this process has bound the socket, now or before a signal
}

// close closes what look has opened.
func (b *bind) close() {
	if b.socket != nil {
		b.socket.Close()
	}
	if b.caller != nil {
		b.caller.Close()
	}
}

// errIgnored is for a bind that passes through to the kernel and changes nothing about
// the port.
var errIgnored = errors.New("not of the published port")

// bind answers a bind of the port: by a swap, by an error, or by passing it through to
// the kernel, after which the fallback serves the port.
//
// What takes long is done before the port is locked. Only one bind at a time waits for
// the lock, so that nothing else waits for more than one bind.
func (p *port) bind(b *bind) {
	err := p.prepare(b)
	defer b.close()
	if err == nil {
		p.binding.Lock()
		defer p.binding.Unlock()
	}
	if p.closing.Load() || !b.Valid() { // the port is closing, or nobody waits
		err = errors.Join(errIgnored, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer(b, p.settle(b, err))
}

// settle does what needs the lock, after prepare. The port is locked.
func (p *port) settle(b *bind, err error) error {
	if err == nil || err == errSwapped { // not where the bind is to be ignored as well
		if n := p.interrupted(b.socket); n != nil {
			return p.finish(b, n)
		}
	}
	if err != nil {
		return err
	}
	return p.swap(b)
}

// answer answers the bind, after err. The port is locked.
func (p *port) answer(b *bind, err error) {
	var errno unix.Errno
	switch {
	case err == nil:
		p.why = nil
		p.driver.log().Debug("a port is native", "address", p.base.Addr, "pid", b.caller.PID)
		return
	case errors.As(err, &refusal{}):
		if !errors.As(err, &errno) {
			errno = unix.ENOBUFS
		}
		p.tell(b, errno)
		return
	case !errors.Is(err, errIgnored):
		p.why = err
		p.driver.log().Debug("a port is not native", "address", p.base.Addr, "reason", err)
	}
	if b.bound {
		p.tell(b, 0) // the kernel would find the socket bound already
	} else {
		b.Continue()
	}
}

// tell makes the bind return, and reports whether it has: a signal may have
// interrupted it.
func (p *port) tell(b *bind, errno unix.Errno) bool {
	told := b.Return(errno) == nil
	if told && b.bound {
		p.unanswered.forget(b)
	}
	return told
}

// errPublishes is for a server that only leads to a container: the fallback leads to
// the container itself, so that the container sees its clients.
var errPublishes = errors.New("the server is the userland proxy of a container")

// refusal is an error that bind(2) returns to the caller.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// prepare does what needs no lock: it finds out whether the bind is about the port,
// and binds the socket that is to be replaced.
func (p *port) prepare(b *bind) error {
	if p.closing.Load() || !b.Valid() {
		return errIgnored
	}
	if err := b.look(); err != nil {
		return err
	}
	if err := p.check(b); err != nil {
		return err
	}
	if args, err := b.caller.CommandLine(); err == nil && userlandproxy.Publishes(args) {
		return errPublishes
	}
	if err := p.bindInside(b); err != nil {
		return err
	}
	return b.caller.CheckSole(b.socket)
}

// swap gives the caller a socket of the host. The port is locked.
func (p *port) swap(b *bind) error {
	if p.closed {
		return errIgnored
	}
	front, err := p.base.Front(b.socket.Family)
	if errors.Is(err, hostsock.ErrNoFront) {
		return err
	}
	if err != nil {
		return fmt.Errorf("binding %s in the host: %w", p.base.Addr, err)
	}
	defer unix.Close(front)
	return p.put(b, front)
}

// look opens the caller and its socket.
func (b *bind) look() (err error) {
	if b.caller, err = fdswap.Open(b.Call); err != nil {
		return err
	}
	if err = b.caller.ReadStatus(); err == nil {
		b.socket, err = b.caller.Socket(b.FD)
	}
	if errors.Is(err, fdswap.ErrNoSocket) {
		err = errors.Join(errIgnored, err)
	}
	return err
}

// check returns an error unless the port leads to the socket.
func (p *port) check(b *bind) error {
	s := b.socket
	switch {
	case !s.TCP():
		return errIgnored
	case s.Netns == p.driver.host:
		return errSwapped
	case s.Netns != b.netns, s.Bound && !p.unanswered.has(b), s.Family == unix.AF_INET != b.addr.Addr().Is4(), !p.serves(b):
		return errIgnored
	}
	return p.mayBind(b)
}

// mayBind returns an error unless the caller may bind a port as low as this one. The
// kernel cannot be asked: this process, which binds in its place, owns the namespace
// and may bind every port.
func (p *port) mayBind(b *bind) error {
	if b.addr.Port() >= privilegedPorts || b.caller.Has(unix.CAP_NET_BIND_SERVICE) {
		return nil
	}
	pid := 0
	if p.guest != nil {
		pid = p.guest.PID()
	}
	ctx, cancel := context.WithTimeout(p.driver.ctx, lookPatience)
	defer cancel()
	ns, err := look(ctx, p.driver.sb.Child, pid)
	if err != nil {
		return err
	}
	if int(b.addr.Port()) < ns.UnprivilegedPortStart {
		return errors.New("the server has no CAP_NET_BIND_SERVICE in the namespace")
	}
	return nil
}

// lookPatience bounds the wait for the child, which may be stopped, or be reading a
// file that the command has mounted.
const lookPatience = 10 * time.Second

// privilegedPorts is the kernel's default of ip_unprivileged_port_start (ip(7)).
const privilegedPorts = 1024

// serves reports whether the address of the bind receives connections to the port's
// target.
func (p *port) serves(b *bind) bool {
	ip, target := b.addr.Addr(), p.target.Addr()
	if p.guest != nil {
		return !ip.Unmap().IsLoopback()
	}
	if !ip.IsUnspecified() {
		return ip.Unmap() == target || ip.Unmap().IsUnspecified() && target.Is4()
	}
	if ip.Is4() {
		return target.Is4()
	}
	return target.Is6() || !b.socket.V6Only || p.base.Dual
}

// bindInside binds the socket that is to be replaced in the namespace: the caller gets
// the error of that, and the socket becomes the shadow. Where the shadow of another
// server has the address, as in a restart, that server gets a moment to end.
//
// The port is not locked meanwhile. The wait ends where the caller no longer waits.
func (p *port) bindInside(b *bind) error {
	for deadline := time.Now().Add(endPatience); ; time.Sleep(refreshPause) {
		serves := p.hasNatives()
		errno := p.unanswered.bind(b)
		if errno == 0 {
			b.bound = true
			return nil
		}
		if errno != unix.EADDRINUSE || !serves || time.Now().After(deadline) || p.closing.Load() || !b.Valid() {
			return refusal{errno}
		}
	}
}

const endPatience = 200 * time.Millisecond
