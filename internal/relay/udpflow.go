package relay

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/eventloop"
	"rootlesskit/internal/sockio"
)

// udpFlow is a client of a port and its socket in the namespace.
//
//	state     is      its client's datagrams             ends by
//	waiting   fd < 0  are held                           its route and its socket: open, or lost where no
//	                                                     server was found; none to be had: ended
//	open      ...     are sent                           a reply: served; a refusal: lost; a second: stale
//	served    answered  are sent                         a refusal: lost; a second without a reply: stale
//	stale     inDoubt   are sent, copies are kept        a look: open or served; a server elsewhere: moved
//	lost      lost      are held until a look has        a server found: open; one elsewhere: moved; none:
//	                    answered, then sent              lost, until the next datagram; a reply: served,
//	                                                     but stale while its way is a guess
//	moved     fd < 0    are held; a new socket           as waiting
//	ended     closed    begin a new flow                 -
//
// A flow ends when it has been silent for UDPConfig.MaxSilence, or when there is no
// more room and it has been silent longest. A look does not move a flow if it finds
// no server, or if the server that answers the flow is still there. See udpdoubt.go
// for looks.
type udpFlow struct {
	client sockio.Addr
	// source is the control message for sending from the address that the client
	// sent to; nil on a listener with one address.
	source []byte

	key   flowKey
	port  *UDPPort
	via   *udpListener
	route Route
	fd    int // -1: waits for a socket, or closed
	token eventloop.Token

	answered bool    // since the server refused last
	refused  bool    // since the server answered last
	owed     bool    // something was sent since the server answered last
	lost     bool    // no server is known at the end of its route
	inDoubt  bool    // its route is being looked up, or will be
	holds    bool    // the held datagrams were not sent
	closed   bool    //
	whole    [2]bool // takes no segments, by direction

	seen       time.Duration // when it was used last
	sure       time.Duration // when its route was last known to be right
	prev, next *udpFlow      // in the flowList

	round struct{ first, last int } // its slots in a listener's round; first -1: none

	held      []heldDatagram // datagrams that arrived while it waited
	heldBytes int
}

// flowKey identifies a flow. IPv4 addresses are in mapped form.
type flowKey struct {
	client, local [16]byte // local is zero on a listener with one address
	scope, port   uint32   // of the client
}

func keyOf(s *udpSlot) flowKey {
	return flowKey{client: s.from.As16(), local: s.info.Local, scope: s.from.Scope(), port: uint32(s.from.Port())}
}

func (k *flowKey) clientAddr() netip.AddrPort {
	addr := netip.AddrFrom16(k.client).Unmap()
	if k.scope != 0 {
		addr = addr.WithZone(strconv.FormatUint(uint64(k.scope), 10))
	}
	return netip.AddrPortFrom(addr, uint16(k.port))
}

// newFlow makes a flow for the sender of a datagram.
func (l *udpListener) newFlow(key flowKey, s *udpSlot, now time.Duration) *udpFlow {
	p := l.port
	f := &udpFlow{key: key, port: p, via: l, fd: -1, client: s.from}
	f.route = p.cfg.Router.Route(key.clientAddr(), l.asked(&key))
	f.round.first = -1
	if l.wildcard {
		f.source = sockio.AppendLocal(nil, l.family, &s.info)
	}
	p.stats.accepted.Add(1)
	ok, err := f.open()
	if err != nil {
		p.refuse(f, err)
	}
	if err != nil || !ok {
		return nil
	}
	p.addFlow(f, now)
	return f
}

// open gives the flow its socket, or makes it wait for one. It returns false if
// neither is possible.
func (f *udpFlow) open() (bool, error) {
	if !f.route.Target.IsValid() {
		return f.resolve(), nil
	}
	return f.openRouted()
}

// openRouted is open for a known route.
func (f *udpFlow) openRouted() (bool, error) {
	if err := checkUDPRoute(f.route); err != nil {
		return false, err
	}
	pool := f.route.Pool
	if pool == nil {
		pool = f.port.cfg.Pool(sockio.Family(f.route.Target.Addr()))
	}
	fd, ok := pool.get()
	if !ok {
		return f.wait(pool), nil
	}
	return true, f.connect(fd)
}

// connect gives a socket of the namespace to the flow.
func (f *udpFlow) connect(fd int) error {
	err := f.port.connectUDP(fd, f.route)
	if err == nil {
		f.token, err = f.port.loop.set.Add(fd, unix.EPOLLIN, f)
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	f.fd = fd
	f.sure, f.lost = f.port.loop.now(), f.route.Unserved
	f.answered, f.owed = false, false
	return nil
}

func checkUDPRoute(r Route) error {
	if !r.Target.IsValid() {
		return errors.New("there is no route to the namespace")
	}
	if r.Source.IsValid() && sockio.Family(r.Source.Addr()) != sockio.Family(r.Target.Addr()) {
		return fmt.Errorf("the source %s and the target %s are of different families", r.Source, r.Target)
	}
	return nil
}

// connectUDP binds and connects a socket of the namespace for a flow.
func (p *UDPPort) connectUDP(fd int, r Route) error {
	setUDPBuffers(fd)
	p.batch.enableGRO(fd)
	if r.Source.IsValid() {
		if errno := bindSource(fd, r.Source); errno != 0 {
			return fmt.Errorf("binding the source %s in the namespace: %w", r.Source, errno)
		}
	}
	if errno := sockio.Connect(fd, r.Target); errno != 0 {
		return fmt.Errorf("connecting to %s in the namespace: %w", r.Target, errno)
	}
	return nil
}

// bindSource binds a flow's socket to the client's address, and to the client's
// port unless another socket of the namespace has it. With SO_REUSEADDR, a
// client can use one port for several published ports: the sockets differ by
// their targets. If the kernel chooses the port, the option must be off, or two
// flows might get the same port.
func bindSource(fd int, source netip.AddrPort) unix.Errno {
	reuse := func(on int32) { sockio.SetInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, on) }
	if source.Port() != 0 {
		reuse(1)
	}
	errno := sockio.Bind(fd, source)
	if errno == unix.EADDRINUSE {
		reuse(0)
		errno = sockio.Bind(fd, netip.AddrPortFrom(source.Addr(), 0))
	}
	return errno
}

// forward sends the datagrams that arrived for the flow in this round.
func (f *udpFlow) forward() {
	b := f.port.batch
	for i := f.round.first; i >= 0; i = b.slots[i].next {
		switch {
		case f.closed:
		case f.fd < 0, f.inDoubt && f.lost:
			f.holds = true
			if !f.hold(&b.slots[i]) {
				f.port.stats.dropped.Add(1)
			}
		case f.inDoubt, f.guesses():
			f.hold(&b.slots[i])
			fallthrough
		default:
			b.tx.add(f, &b.slots[i], udpToServer)
		}
	}
	f.round.first = -1
	if b.tx.n > 0 {
		f.owed = true
		f.port.count(b.tx.flush(f.fd, udpToServer), udpToServer)
	}
}

// ready receives the replies of the server.
func (f *udpFlow) Ready(uint32) {
	n, errno := f.port.batch.collect(f)
	switch {
	case n > 0:
		f.answered, f.refused, f.owed, f.lost = true, false, false, false
		if !f.holds {
			f.dropHeld() // copies of what the server has got
		}
	case errno != unix.EAGAIN:
		f.failed(errno)
	}
}

// failed handles an error that the flow's socket reports about the server. The
// flow stays, so that it has the same source port when the server comes back.
func (f *udpFlow) failed(errno unix.Errno) {
	switch errno {
	case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EACCES, unix.EPERM:
	default:
		return
	}
	if !f.refused {
		f.port.refuse(f, errno)
	}
	f.refused, f.answered, f.lost = true, false, true
	if f.route.Guess && len(f.held) > 0 && !f.inDoubt {
		f.holds = true
		f.consider(f.port.loop.now())
	}
}

// guesses reports whether copies of sent datagrams are kept, for the server in case it
// is elsewhere.
func (f *udpFlow) guesses() bool {
	return f.route.Guess && !f.answered && !f.refused && len(f.held) == 0
}

func (p *UDPPort) refuse(f *udpFlow, err error) {
	p.fault(fmt.Sprintf("udp %s -> %s", f.key.clientAddr(), f.route.Target), err)
	p.stats.refused.Add(1)
}
