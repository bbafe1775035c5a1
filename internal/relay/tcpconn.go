package relay

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// A tcpConn moves bytes between a client and a server of the namespace.
//
//	accept -> socket of the pool -> connect, without waiting -> pump both ways
//
// connect on a nonblocking socket returns before the handshake is over, but to a
// server on the same machine it is over by then. So the first bytes are moved at
// once; if it was too early, the write says EAGAIN and the socket becomes
// writable later, which is the usual case of a full peer.
//
// Both sockets are edge-triggered and registered once. A direction keeps what it
// could not write; it reads no more until that is gone, and so the kernel's
// windows carry the back-pressure to the sender. The end of a stream is passed on
// by shutdown when all before it was written; a reset is passed on as a reset.
type tcpConn struct {
	part       *tcpPart
	side       [2]tcpSide
	dir        [2]direction
	connected  bool // bytes went to the server, or its socket became writable
	dead       bool
	resumed    bool // again was called
	next, prev *tcpConn
	router     *routing
}

// The two sides of a connection, and the directions by their source.
const (
	client   = 0
	child    = 1
	toChild  = client
	toClient = child
)

// tcpSide is one of the sockets.
type tcpSide struct {
	conn   *tcpConn
	fd     int
	token  token
	number int
	// ended says that the peer sends no more. What it has sent must be read to
	// the end: no further event comes.
	ended bool
}

// routing is what is needed until the connection is made.
type routing struct {
	client, local netip.AddrPort
	route         Route
	rerouted      bool
	deadline      *timer
}

// poolTimeout is how long a client waits for a socket of the pool.
const poolTimeout = 5 * time.Second

// accepted starts a connection for a client's socket; socket is one of the
// namespace, of the port's family.
func (t *tcpPart) accepted(fd int, sa unix.Sockaddr, socket int) {
	t.port.stats.accepted.Add(1)
	c := &tcpConn{part: t}
	for i := range c.side {
		c.side[i] = tcpSide{conn: c, fd: -1, number: i}
	}
	c.side[client].fd = fd
	t.conns.add(c)
	noDelay(fd)
	r := &routing{client: addrPortOf(sa)}
	if local, err := unix.Getsockname(fd); err == nil {
		r.local = addrPortOf(local)
	}
	c.router = r
	r.route = t.port.cfg.Route(r.client, r.local)
	if r.route.Target.IsValid() && familyOf(r.route.Target.Addr()) == t.port.cfg.Family {
		c.connect(socket)
		return
	}
	t.port.cfg.Pool(t.port.cfg.Family).putBack(socket)
	if resolve := t.port.cfg.Resolve; resolve != nil && !r.route.Target.IsValid() {
		go func() {
			route := resolve(r.client, r.local)
			t.loop.post(func() { c.resolved(route) })
		}()
		return
	}
	c.routed()
}

// resolved goes on with the answer of Resolve.
func (c *tcpConn) resolved(route Route) {
	if c.dead {
		return
	}
	c.router.route = route
	c.routed()
}

// routed goes on where the route is known.
func (c *tcpConn) routed() {
	if !c.router.route.Target.IsValid() {
		c.refuse("there is no route to the namespace")
		return
	}
	c.takeSocket()
}

// takeSocket gets a socket of the namespace, now or when there is one.
func (c *tcpConn) takeSocket() {
	pool := c.part.port.cfg.Pool(familyOf(c.router.route.Target.Addr()))
	if fd, ok := pool.get(); ok {
		c.connect(fd)
		return
	}
	l := c.part.loop
	c.router.deadline = l.after(poolTimeout, func() {
		c.router.deadline = nil
		c.refuse("no socket of the namespace could be made in time")
	})
	pool.wait(&waiter{loop: l, got: func(fd int) { c.gotSocket(fd) }})
}

func (c *tcpConn) gotSocket(fd int) {
	if c.dead {
		if fd >= 0 {
			unix.Close(fd)
		}
		return
	}
	c.part.loop.stopTimer(c.router.deadline)
	c.router.deadline = nil
	if fd < 0 {
		c.refuse("the namespace has ended")
		return
	}
	c.connect(fd)
}

// connect starts the connection to the server and the traffic.
func (c *tcpConn) connect(fd int) {
	c.side[child].fd = fd
	noDelay(fd)
	if err := c.startConnect(fd); err != nil {
		c.rerouteOrRefuse(err)
		return
	}
	const events = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET
	for i := range c.side {
		s := &c.side[i]
		if s.token != (token{}) {
			continue // the client's, before a second route
		}
		t, err := c.part.loop.register(s.fd, events, s)
		if err != nil {
			c.refuse(err.Error())
			return
		}
		s.token = t
	}
	if len(c.router.route.Prelude) > 0 {
		c.dir[toChild].keep(c.router.route.Prelude)
	}
	c.pump(toChild)
}

func (c *tcpConn) startConnect(fd int) error {
	r := c.router.route
	family := familyOf(r.Target.Addr())
	if r.Source.IsValid() {
		if r.Source.Port() == 0 {
			// The port is chosen by connect, when the target is known too, so that
			// two connections may share it (ip(7), Linux 4.2).
			_ = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		}
		if err := unix.Bind(fd, sockaddrOf(r.Source, family)); err != nil {
			return err
		}
	}
	err := unix.Connect(fd, sockaddrOf(r.Target, family))
	if err == unix.EINPROGRESS {
		return nil
	}
	return err
}

// rerouteOrRefuse tries another way to the server, if there is one.
func (c *tcpConn) rerouteOrRefuse(err error) {
	s := &c.side[child]
	if s.token != (token{}) {
		c.part.loop.forget(s.token)
		s.token = token{}
	}
	unix.Close(s.fd)
	s.fd = -1
	r := c.router
	reason := "connecting to " + r.route.Target.String() + " in the namespace: " + err.Error()
	if reroute := c.part.port.cfg.Reroute; reroute != nil && !r.rerouted {
		r.rerouted = true
		var ok bool
		if r.route, ok = reroute(r.client, r.local, err); ok {
			c.takeSocket()
			return
		}
	}
	c.refuse(reason)
}

// refuse resets the client and says why.
func (c *tcpConn) refuse(reason string) {
	p := c.part.port
	p.stats.refuse(reason)
	p.cfg.Log.Debug("a connection was refused", "client", c.router.client, "reason", reason)
	c.abort()
}

// ready is told what happened on a socket.
func (s *tcpSide) ready(events uint32) {
	c := s.conn
	c.resumed = c.resumed && events != 0
	if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 && c.failed(s) {
		return
	}
	if events&unix.EPOLLOUT != 0 && s.number == child {
		c.connected = true
	}
	s.ended = s.ended || events&(unix.EPOLLRDHUP|unix.EPOLLHUP) != 0
	// Writable: the direction that ends here; readable: the one that begins.
	if events == 0 || events&(unix.EPOLLOUT|unix.EPOLLHUP) != 0 {
		c.pump(1 - s.number)
	}
	if !c.dead && (events == 0 || events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP) != 0) {
		c.pump(s.number)
	}
}

// failed handles the error of a socket, if it has one.
func (c *tcpConn) failed(s *tcpSide) bool {
	errno, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil || errno == 0 {
		return false // a hang-up in order: both directions have ended
	}
	if s.number == child && !c.connected {
		c.rerouteOrRefuse(unix.Errno(errno))
		return true
	}
	c.abort()
	return true
}

// abort cuts the connection: both peers get a reset.
func (c *tcpConn) abort() {
	for i := range c.side {
		if fd := c.side[i].fd; fd >= 0 {
			_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		}
	}
	c.finish()
}

// finish closes the sockets and forgets the connection.
func (c *tcpConn) finish() {
	c.dead = true
	c.part.port.stats.closed.Add(1) // before a peer can know
	for i := range c.side {
		s := &c.side[i]
		if s.token != (token{}) {
			c.part.loop.forget(s.token)
		}
		if s.fd >= 0 {
			unix.Close(s.fd)
		}
	}
	for i := range c.dir {
		c.dir[i].release(c.part.loop)
	}
	if c.router != nil {
		c.part.loop.stopTimer(c.router.deadline)
	}
	c.part.conns.remove(c)
}

func noDelay(fd int) { _ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) }

// connList is the connections of a port on one loop.
type connList struct{ first *tcpConn }

func (l *connList) add(c *tcpConn) {
	c.next = l.first
	if l.first != nil {
		l.first.prev = c
	}
	l.first = c
}

func (l *connList) remove(c *tcpConn) {
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		l.first = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	}
	c.next, c.prev = nil, nil
}
