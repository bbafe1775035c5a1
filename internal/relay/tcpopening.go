package relay

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// opening has what is only needed until the connection is made.
type opening struct {
	client, local netip.AddrPort
	route         Route
	rerouted      bool
	deadline      *timer
	// late says that the server does not answer, and that there is no other route.
	late bool
}

// answerTimeout is how long a server may take to accept or refuse. It is on this
// machine, and the kernel answers for it.
const answerTimeout = time.Second

// resolve asks for the route, and continues with then.
func (c *tcpConn) resolve(then func()) {
	o, router, loop := c.opening, c.part.port.cfg.Router, c.part.loop
	go func() {
		route := router.Resolve(o.client, o.local)
		loop.post(func() {
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
	none := &NoAnswer{o.route.Target}
	if !o.rerouted {
		o.rerouted = true
		if route, ok := cfg.Router.Reroute(o.client, o.local, none); ok {
			c.closeSide(&c.side[child])
			c.reroute(route)
			return
		}
	}
	o.late = true
	if c.side[client].ended {
		c.refuse(none.Error())
	}
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
