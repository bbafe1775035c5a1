package bypass

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/seccomp"
)

// maxCalls bounds the calls that are being answered; a further one waits.
const maxCalls = 256

// answer answers the calls of the command and of all that it has started. What
// takes time has a goroutine, so that nobody waits for another.
func (p *Ports) answer(l *seccomp.Listener) {
	defer close(p.answers)
	defer l.Close()
	defer p.calls.Wait()
	binds, connects := make(chan struct{}, maxCalls), make(chan struct{}, maxCalls)
	for {
		c, err := l.Receive()
		if err != nil {
			if !errors.Is(err, seccomp.ErrEnded) {
				p.relay(err)
			}
			return
		}
		switch {
		case c.TID == 0:
			c.Continue()
		case c.Connect:
			p.async(connects, func() { p.connect(c) })
		default:
			p.bind(c, binds)
		}
	}
}

// async runs a function when there is room.
func (p *Ports) async(room chan struct{}, f func()) {
	p.calls.Go(func() {
		room <- struct{}{}
		defer func() { <-room }()
		f()
	})
}

// bind decides about those at once that are of no port.
func (p *Ports) bind(c seccomp.Call, room chan struct{}) {
	raw, err := c.Sockaddr()
	if err != nil {
		c.Continue() // the kernel finds it as wrong
		return
	}
	addr, ok := parseSockaddr(raw)
	if !ok {
		c.Continue()
		return
	}
	switch ports := p.published(addr.Port()); len(ports) {
	case 0:
		c.Continue()
	case 1:
		p.async(room, func() { ports[0].bind(&bind{Call: c, raw: raw, addr: addr, netns: p.child}) })
	default:
		for _, t := range ports {
			t.stay(errors.New("the port of the namespace is published more than once"))
		}
		c.Continue()
	}
}

// stay notes why a port is not native.
func (t *port) stay(why error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.why = why
}

// parseSockaddr reads struct sockaddr_in and sockaddr_in6, and nothing else. An
// IPv4 address in an IPv6 one stays in its mapped form.
func parseSockaddr(b []byte) (netip.AddrPort, bool) {
	if len(b) < 2 {
		return netip.AddrPort{}, false
	}
	switch family := binary.NativeEndian.Uint16(b); {
	case family == unix.AF_INET && len(b) >= unix.SizeofSockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:])), true
	case family == unix.AF_INET6 && len(b) >= unix.SizeofSockaddrInet6-4: // as the kernel, without sin6_scope_id
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])), binary.BigEndian.Uint16(b[2:])), true
	}
	return netip.AddrPort{}, false
}
