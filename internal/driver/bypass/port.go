package bypass

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"rootlesskit/api"
	"rootlesskit/internal/driver/bypass/containers"
	"rootlesskit/internal/driver/bypass/fdswap"
	"rootlesskit/internal/hostsock"
	"rootlesskit/internal/netns"
	"rootlesskit/internal/publish"
)

// port is a published TCP port.
type port struct {
	driver *Ports
	base   hostsock.Base
	target netip.AddrPort
	// fallback serves the port where no native does.
	fallback *publish.Port
	// guest is the container that the port leads to; nil: it leads to the launcher's
	// namespace.
	guest containers.Guest
	// fronted says that there are natives. The loops of the fallback read it.
	fronted atomic.Bool

	unanswered unanswered

	// binding is held by the one bind that waits for mu, or has it.
	binding sync.Mutex
	// closing says that Close has begun, after which every bind is ignored.
	closing atomic.Bool

	mu        sync.Mutex
	closed    bool
	natives   []native
	refreshed time.Time
	why       error // why the port is not native
}

// native is a socket of the host that a server has. This process keeps no descriptor
// of it: the port would stay bound after the server has ended.
type native struct {
	inode     uint64
	family    int
	v6Only    bool // whether the server asked for IPV6_V6ONLY
	listening bool
	// from is the socket that was replaced.
	from uint64
	// unanswered says that a signal has interrupted the bind after that.
	unanswered bool
	// The process that bound it, and its descriptor.
	pid, fd int
	// shadow listens at the address in the namespace that the server bound.
	shadow *publish.Port
}

// Details implements driver.Detailer.
func (p *port) Details() api.PortDetails {
	d := p.fallback.Details()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refresh()
	d.State = api.PortNative
	if len(p.natives) == 0 {
		d.State, d.StateReason = api.PortRelay, p.reason().Error()
	}
	return d
}

func (p *port) reason() error {
	if why := p.driver.why(); why != nil && p.guest == nil {
		return why
	}
	return p.why
}

// refresh forgets the natives whose server has ended, and leads connections to
// the others. It asks the kernel: to subscribe to the kernel's events about sockets
// would slow down every connection of the host.
func (p *port) refresh() {
	if len(p.natives) == 0 {
		return
	}
	// The descriptors first, then who listens: a server may begin to listen, and then
	// close its first descriptor.
	held := make([]bool, len(p.natives))
	for i, n := range p.natives {
		held[i] = fdswap.Holds(n.pid, n.fd, n.inode)
	}
	listening, err := netns.Inodes(p.base.Addr.Port(), false)
	if err != nil {
		p.driver.log().Debug("the sockets of a port could not be listed", "error", err)
		return
	}
	var left, ended []native
	for i, n := range p.natives {
		n.listening = listening[n.inode]
		if n.listening || held[i] {
			left = append(left, n)
		} else {
			ended = append(ended, n)
		}
	}
	if len(left) > 1 || len(ended) > 0 {
		defer p.steer(nil)
	}
	p.setNatives(left)
	p.refreshed = time.Now()
	for _, n := range ended {
		_ = n.shadow.Close()
		p.why = errEnded
	}
}

// hasNatives reports whether there are natives. Since many may ask, the answer may be
// a moment old.
func (p *port) hasNatives() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.refreshed) >= refreshPause {
		p.refresh()
	}
	return len(p.natives) > 0
}

const refreshPause = 10 * time.Millisecond

var errEnded = errors.New("the server has ended")

func (p *port) setNatives(natives []native) {
	p.natives = natives
	p.fronted.Store(len(natives) > 0)
}

// steer leads connections to the natives, and to next, which is about to be one.
// Those that do not listen yet count too: the kernel chooses among those that do.
func (p *port) steer(next *native) {
	if p.driver.ctx.Err() != nil {
		return // the fallback has closed the base
	}
	n, v6, v4 := 0, false, false
	for _, native := range p.natives {
		if native.family == p.base.Family {
			n++
			v6, v4 = v6 || native.v6Only, v4 || !native.v6Only
		}
	}
	if next != nil && next.family == p.base.Family {
		n++
		v6, v4 = v6 || next.v6Only, v4 || !next.v6Only
	}
	if err := p.base.Steer(n, v6 && !v4 && p.base.Dual); err != nil {
		p.driver.log().Warn("a native port shares its connections with the relay", "error", err)
	}
}

// Close implements io.Closer. It shuts the servers' sockets down, so that accept(2)
// returns EINVAL there, and their connections.
func (p *port) Close() error {
	p.driver.leave(p)
	p.closing.Store(true)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed = true
		p.cut()
	}
	return p.fallback.Close()
}

// cut ends the natives and their connections.
func (p *port) cut() {
	p.refresh()
	if len(p.natives) == 0 {
		return
	}
	// First the listening sockets, then all: a server may accept in between.
	for _, all := range []bool{false, true} {
		inodes, err := netns.Inodes(p.base.Addr.Port(), all)
		if err != nil {
			p.driver.log().Warn("the connections of a port could not be listed, and go on", "error", err)
		}
		fdswap.ShutDown(inodes)
	}
	for _, n := range p.natives {
		_ = n.shadow.Close()
	}
	p.setNatives(nil)
}
