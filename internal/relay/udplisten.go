package relay

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/eventloop"
	"rootlesskit/internal/sockio"
)

// udpListener is a socket of a port in the host.
type udpListener struct {
	port   *UDPPort
	fd     int
	token  eventloop.Token
	family int
	bound  netip.AddrPort
	// wildcard: clients send to various addresses, so each datagram comes with its own.
	wildcard bool
	touched  []*udpFlow // by a round
}

// newUDPListener prepares a bound socket.
func newUDPListener(p *UDPPort, fd int) (*udpListener, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return nil, fmt.Errorf("getsockname of descriptor %d: %w", fd, err)
	}
	l := &udpListener{port: p, fd: fd, touched: make([]*udpFlow, 0, udpBatchSize)}
	l.bound = sockio.FromSockaddr(sa)
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		l.family = unix.AF_INET
	case *unix.SockaddrInet6:
		l.family = unix.AF_INET6
		if sa.ZoneId != 0 {
			zone := strconv.FormatUint(uint64(sa.ZoneId), 10)
			l.bound = netip.AddrPortFrom(l.bound.Addr().WithZone(zone), l.bound.Port())
		}
	default:
		return nil, fmt.Errorf("descriptor %d is not an IP socket", fd)
	}
	if l.bound.Addr().IsUnspecified() {
		l.wildcard = true
		if err := sockio.TellLocal(fd, l.family); err != nil {
			return nil, fmt.Errorf("IP_PKTINFO: %w", err)
		}
	}
	setUDPBuffers(fd)
	return l, nil
}

// setUDPBuffers asks for the largest buffers that the system allows
// (net.core.rmem_max and wmem_max), since bursts that do not fit are lost. The
// sizes are bounds; nothing is reserved.
func setUDPBuffers(fd int) {
	const most = 4 << 20
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, most)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, most)
}

// ready forwards one batch of datagrams; the loop comes back for more. Without
// events, it is the end of the loop's round, when the replies are sent.
func (l *udpListener) Ready(events uint32) {
	b := l.port.batch
	b.flush() // the slots are needed
	if events == 0 {
		return
	}
	n, errno := b.receive(l.fd, 0, udpBatchSize)
	if n == 0 && errno != unix.EAGAIN {
		l.port.fault("receiving on "+l.bound.String(), errno)
		return
	}
	l.sort(n)
	for _, f := range l.touched {
		f.forward()
	}
	clear(l.touched)
	l.touched = l.touched[:0]
}

// sort assigns the datagrams of the first n slots to their flows.
func (l *udpListener) sort(n int) {
	now := l.port.loop.now()
	slots := l.port.batch.slots[:n]
	for i := range slots {
		slots[i].next = -1
		f := l.flow(&slots[i], now)
		switch {
		case f == nil:
			l.port.stats.dropped.Add(1)
		case f.round.first < 0:
			f.round.first, f.round.last = i, i
			l.touched = append(l.touched, f)
		default:
			slots[f.round.last].next = i
			f.round.last = i
		}
	}
}

// flow returns the flow of a datagram, a new one if necessary; nil if there is
// no route to the server.
func (l *udpListener) flow(s *udpSlot, now time.Duration) *udpFlow {
	p := l.port
	key := keyOf(s)
	f := p.flows.byKey[key]
	if f == nil {
		return l.newFlow(key, s, now)
	}
	if f.round.first < 0 {
		f.consider(now)
	}
	p.touch(f, now)
	return f
}

// asked returns the address that the client of a flow sends to.
func (l *udpListener) asked(key *flowKey) netip.AddrPort {
	if !l.wildcard {
		return l.bound
	}
	return netip.AddrPortFrom(netip.AddrFrom16(key.local).Unmap(), l.bound.Port())
}
