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
	bound  bool // the socket is, by us
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

// errNotOurs is for what the kernel is to do, and nothing is to be said about.
var errNotOurs = errors.New("not of the published port")

// bind answers a bind of the port: by a swap, by an error, or by letting the
// kernel do it, after which the relay serves the port.
//
// What takes long is done before the port is locked, and one bind at a time wants
// it locked, so that nothing else has to wait for more than one.
func (p *port) bind(b *bind) {
	err := p.prepare(b)
	defer b.close()
	if err == nil {
		p.binding.Lock()
		defer p.binding.Unlock()
	}
	if p.closing.Load() || !b.Valid() { // or nobody waits for it
		err = errors.Join(errNotOurs, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		err = p.swap(b)
	}
	p.answer(b, err)
}

// answer is for who has locked the port.
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
		_ = b.Return(errno)
		return
	case !errors.Is(err, errNotOurs):
		p.why = err
		p.driver.log().Debug("a port is not native", "address", p.base.Addr, "reason", err)
	}
	if b.bound {
		_ = b.Return(0) // as the kernel would, which would find it bound
	} else {
		b.Continue()
	}
}

// errPublishes is for who listens in the name of a container: the relay leads past it,
// so that the container sees its clients.
var errPublishes = errors.New("the server is the userland proxy of a container")

// refusal is an error that the caller gets.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// prepare does what needs no lock: it finds out whether the bind is of the port, and
// binds the socket that is to be replaced.
func (p *port) prepare(b *bind) error {
	if p.closing.Load() || !b.Valid() {
		return errNotOurs
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
		return errNotOurs
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

// look finds out who calls, and with what socket.
func (b *bind) look() (err error) {
	if b.caller, err = fdswap.Open(b.Call); err != nil {
		return err
	}
	if err = b.caller.ReadStatus(); err == nil {
		b.socket, err = b.caller.Socket(b.FD)
	}
	if errors.Is(err, fdswap.ErrNoSocket) {
		err = errors.Join(errNotOurs, err)
	}
	return err
}

// check reports whether the socket is one that the port leads to.
func (p *port) check(b *bind) error {
	s := b.socket
	switch {
	case !s.TCP():
		return errNotOurs
	case s.Netns == p.driver.host:
		return refusal{unix.EINVAL} // it is bound, whatever was done to it since
	case s.Netns != b.netns, s.Bound, s.Family == unix.AF_INET != b.addr.Addr().Is4(), !p.serves(b):
		return errNotOurs
	}
	return p.mayBind(b)
}

// mayBind reports whether a privileged port is the caller's to bind: this process,
// which binds in its place, owns the namespace and may always.
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

// lookPatience bounds the wait for the child, which may be stopped, or read what the
// command has mounted.
const lookPatience = 10 * time.Second

// privilegedPorts is the most that the kernel reserves (ip_unprivileged_port_start
// in ip(7)); usually it is this.
const privilegedPorts = 1024

// serves reports whether connections to the port's target reach the address.
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

// bindInside gives the socket that is to be replaced its address in the
// namespace, for the error that the caller expects, if any, and for the shadow. The
// shadow of a server that is about to end, as in a restart, gets a moment for it.
//
// The port is not locked meanwhile, and who no longer waits is left.
func (p *port) bindInside(b *bind) error {
	for deadline := time.Now().Add(endPatience); ; time.Sleep(refreshPause) {
		serves := p.hasNatives()
		errno := b.socket.Bind(b.raw)
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
