package relay

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/eventloop"
	"rootlesskit/internal/sockio"
)

// opening has what is only needed until the connection is made.
type opening struct {
	client, local netip.AddrPort
	route         Route
	rerouted      bool
	deadline      *eventloop.Timer
	// late says that the server does not answer, and that there is no other route.
	late bool
	// patience is how long the next answer may take; 0: as long as usual.
	patience time.Duration
}

// poolTimeout is how long a client waits for a socket of the pool.
const poolTimeout = 5 * time.Second

// answerTimeout is how long a server may take to accept or refuse. It is on this
// machine, and the kernel answers for it. Behind NAT it may be a container, and the
// first packet lost while its link comes up: the kernel repeats it after a second
// (RFC 6298), for which guessTimeout has room.
const (
	answerTimeout = time.Second
	guessTimeout  = 2500 * time.Millisecond
)

// maxPatience bounds how long a connection waits before it is made anew.
const maxPatience = time.Minute

// accepted starts a connection for a client's socket fd; socket is in the
// namespace, and of the port's family.
func (t *tcpPart) accepted(fd int, from netip.AddrPort, socket int) {
	t.stats.accepted.Add(1)
	c := &tcpConn{part: t, opening: &opening{client: from, local: sockio.LocalAddr(fd)}}
	c.side[client] = tcpSide{conn: c, fd: int32(fd), number: client, readable: true, writable: true}
	c.side[child] = tcpSide{conn: c, fd: -1, number: child}
	t.conns.add(c)
	t.loop.tcp.conns++
	o, cfg := c.opening, &t.port.cfg
	if o.client.Addr() != o.local.Addr() && !o.client.Addr().IsLoopback() {
		sockio.SetString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, t.port.congestion)
	}
	o.route = cfg.Router.Route(o.client, o.local)
	if o.route.Pool == nil && o.route.Target.IsValid() && sockio.Family(o.route.Target.Addr()) == cfg.Family {
		c.dir[toChild].kept = o.route.Prelude
		c.connect(socket)
		return
	}
	cfg.Pool(cfg.Family).putBack(socket)
	if !o.route.Target.IsValid() {
		c.resolve(c.routed)
		return
	}
	c.routed()
}

// routed continues once the route is known.
func (c *tcpConn) routed() {
	c.dir[toChild].kept = c.opening.route.Prelude
	c.takeSocket()
}

// takeSocket gets a socket of the namespace, now or when one is available.
func (c *tcpConn) takeSocket() {
	to := c.opening.route.Target
	if !to.IsValid() {
		c.refuse("there is no route to the namespace")
		return
	}
	pool := c.opening.route.Pool
	if pool == nil {
		pool = c.part.port.cfg.Pool(sockio.Family(to.Addr()))
	}
	if fd, ok := pool.get(); ok {
		c.connect(fd)
		return
	}
	l := c.part.loop
	c.opening.deadline = l.after(poolTimeout, func() {
		c.opening.deadline = nil
		c.refuse("no socket of the namespace could be made in time")
	})
	pool.wait(&waiter{loop: l, got: c.gotSocket})
}

func (c *tcpConn) gotSocket(fd int) {
	if c.dead {
		if fd >= 0 {
			sockio.Close(fd)
		}
		return
	}
	c.part.loop.stopTimer(c.opening.deadline)
	c.opening.deadline = nil
	if fd < 0 {
		c.refuse("the namespace has ended")
		return
	}
	c.connect(fd)
}

// connect starts the connection to the server, and forwards what the client has
// sent so far.
func (c *tcpConn) connect(fd int) {
	route := &c.opening.route
	s := &c.side[child]
	*s = tcpSide{conn: c, fd: int32(fd), number: child, writable: true}
	if route.Source.IsValid() {
		if route.Source.Port() == 0 {
			// connect chooses the port, when the target is known too, so that two
			// connections may share it (ip(7), Linux 4.2).
			sockio.SetInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		}
		if errno := sockio.Bind(fd, route.Source); errno != 0 {
			c.connectFailed(errno)
			return
		}
	}
	if errno := sockio.Connect(fd, route.Target); errno != 0 && errno != unix.EINPROGRESS {
		c.connectFailed(errno)
		return
	}
	c.pump(toChild)
	for i := range c.side {
		// A connection that has failed in the meantime may have no socket, or another one.
		if s := &c.side[i]; !c.dead && s.fd >= 0 && s.token == (eventloop.Token{}) {
			c.register(s)
		}
	}
	if o := c.opening; o != nil && o.deadline == nil && !c.dead {
		patience := answerTimeout
		if route.Guess {
			patience = guessTimeout
		}
		o.deadline = c.part.loop.after(max(patience, o.patience), c.unanswered)
	}
}

func (c *tcpConn) register(s *tcpSide) {
	const events = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET
	var err error
	if s.token, err = c.part.loop.set.Add(int(s.fd), events, s); err != nil {
		c.refuse(err.Error())
	}
}

// resolve asks for the route, and continues with then.
func (c *tcpConn) resolve(then func()) {
	o, router, loop := c.opening, c.part.port.cfg.Router, c.part.loop
	go func() {
		route := router.Resolve(o.client, o.local)
		loop.mail.Post(func() {
			if !c.dead {
				o.route = route
				then()
			}
		})
	}()
}

// unanswered tries another route to a server that does not answer, if there is
// one. A client that has left does not wait any longer.
func (c *tcpConn) unanswered() {
	o, cfg := c.opening, &c.part.port.cfg
	if o == nil {
		return
	}
	o.deadline = nil
	if isSettled(c.side[child].fd) {
		return // This process was stopped, and has not seen the event yet.
	}
	none := &NoAnswer{o.route.Target}
	if !o.rerouted {
		o.rerouted = true
		if route, ok := cfg.Router.Reroute(o.client, o.local, none); ok {
			c.closeSide(&c.side[child])
			c.reroute(route)
			return
		}
	}
	anew := o.route.Translated || o.route.Source.Port() == 0
	o.late = !anew || o.patience > 0
	switch {
	case o.late && c.side[client].ended:
		c.refuse(none.Error())
	case anew:
		c.connectAnew()
	}
}

// isSettled reports whether a connection that was begun has been accepted or refused.
func isSettled(fd int32) bool {
	state := []unix.PollFd{{Fd: fd, Events: unix.POLLOUT}}
	n, err := unix.Poll(state, 0)
	return err == nil && n == 1
}

// connectAnew makes a connection that is not answered anew, from another port. NAT
// decides about a connection by its first packet, and that may have come before the
// rule for it: container engines open a port first. It waits longer each time.
func (c *tcpConn) connectAnew() {
	o := c.opening
	o.patience = min(2*max(o.patience, answerTimeout), maxPatience)
	o.route.Source = netip.AddrPortFrom(o.route.Source.Addr(), 0)
	c.closeSide(&c.side[child])
	c.takeSocket()
}

// reroute continues with another route.
func (c *tcpConn) reroute(route Route) {
	c.opening.route = route
	if !route.Target.IsValid() {
		c.resolve(c.takeSocket)
		return
	}
	c.takeSocket()
}

// connectFailed tries another route to the server, if there is one.
func (c *tcpConn) connectFailed(errno unix.Errno) {
	c.closeSide(&c.side[child])
	c.part.loop.stopTimer(c.opening.deadline)
	c.opening.deadline = nil
	o, cfg := c.opening, &c.part.port.cfg
	reason := "connecting to " + o.route.Target.String() + " in the namespace: " + errno.Error()
	failed := error(errno)
	switch errno {
	case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EACCES, unix.EPERM:
		failed = &Refused{o.route.Target, errno}
	}
	if !o.rerouted {
		o.rerouted = true
		if route, ok := cfg.Router.Reroute(o.client, o.local, failed); ok {
			c.reroute(route)
			return
		}
	}
	c.refuse(reason)
}

// answered notes that the server has accepted.
func (c *tcpConn) answered() {
	if o := c.opening; o != nil {
		c.part.loop.stopTimer(o.deadline)
		c.part.port.cfg.Router.Answered(o.client, o.route.Target)
		c.opening = nil
	}
}

// opened is called when the server has accepted.
func (c *tcpConn) opened() {
	c.answered()
	// The client may have ended its direction before; see passEnd.
	c.passEnd(toChild)
}
