package relay

import (
	"golang.org/x/sys/unix"

	"rootlesskit/internal/eventloop"
	"rootlesskit/internal/sockio"
)

// tcpConn is a client of a port and its connection to a server of the namespace.
//
//	state        is                   the client's bytes   ends by
//	resolving    opening, no Target   stay in its socket   the Router's answer: waiting; none: refused
//	waiting      opening, fd < 0      stay in its socket   a socket of the pool: connecting; none within
//	                                                       poolTimeout: refused
//	connecting   opening, fd >= 0     are sent or kept     the server accepts, which an event or the first byte
//	                                                       shows: open; an error, or no answer within
//	                                                       answerTimeout: another way, once (resolving or
//	                                                       waiting); else refused, where there was no answer late
//	late         opening.late         are kept             the server accepts: open; an error, or the client's
//	                                                       end: refused; the time to connect anew: waiting
//	open         opening == nil       are pumped, as the   an end of file: half closed; a socket that fails:
//	                                  server's are         draining
//	half closed  one dir.shut         the other way goes   its end, or the failure of a socket: dead
//	                                  on
//	draining     one side.failed      what the side that   all of it is written: dead, and the other side gets
//	                                  failed has sent is   a reset
//	                                  passed on
//	refused      -                    are lost             dead, with a reset, and counted
//	dead         dead                 -                    -
//
// fd is that of the server's side. A client that fails before the server has
// accepted is refused; the end of the port makes every connection dead.
type tcpConn struct {
	part       *tcpPart
	next, prev *tcpConn // in the part's list
	opening    *opening // nil once the server has accepted
	side       [2]tcpSide
	dir        [2]direction
	dead       bool
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
	token  eventloop.Token
	fd     int32 // -1: none
	number uint8
	// readable and writable say that a call is worth trying, as far as is known.
	readable, writable bool
	// ended says that the peer sends no more. What it has sent must be read to
	// the end: no further event comes.
	ended bool
	// failed says that the peer is gone. What it has sent can still be read.
	failed bool
}

// refuse resets the client and logs the reason.
func (c *tcpConn) refuse(reason string) {
	c.part.refuse(reason)
	if c.opening != nil {
		c.part.port.cfg.Log.Debug("a connection was refused", "client", c.opening.client, "reason", reason)
	}
	c.abort()
}

// ready handles the events of a socket. Without events, it continues work that
// was left at the end of a turn.
func (s *tcpSide) Ready(events uint32) {
	c := s.conn
	const broken = unix.EPOLLERR | unix.EPOLLHUP
	if events == 0 {
		c.dir[s.number].resumed = false
	}
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|broken) != 0 {
		s.readable = true // there are bytes, the end, or an error
	}
	if events&(unix.EPOLLRDHUP|broken) != 0 {
		s.ended = true
	}
	if o := c.opening; o != nil && s.number == client && (events&broken != 0 || s.ended && o.late) {
		c.refuse("the client has left before the server answered")
		return
	}
	if events&(unix.EPOLLOUT|broken) != 0 && !s.writable {
		s.writable = true
		c.pump(1 - int(s.number))
	}
	if s.number == child && c.opening != nil && events&(unix.EPOLLOUT|broken) == unix.EPOLLOUT {
		c.opened()
	}
	if !c.dead && s.readable {
		c.pump(int(s.number))
	}
}

// abort cuts the connection: both peers get a reset.
func (c *tcpConn) abort() {
	for i := range c.side {
		if s := &c.side[i]; s.fd >= 0 {
			sockio.Reset(int(s.fd))
		}
	}
	c.finish()
}

// finish closes the sockets and forgets the connection.
func (c *tcpConn) finish() {
	c.dead = true
	c.part.stats.closed.Add(1) // before a peer can notice
	for i := range c.side {
		c.dir[i].release(c.part.loop)
		c.closeSide(&c.side[i])
	}
	if c.opening != nil {
		c.part.loop.stopTimer(c.opening.deadline)
	}
	c.part.conns.remove(c)
	c.part.loop.tcp.conns--
}

func (c *tcpConn) closeSide(s *tcpSide) {
	if s.fd < 0 {
		return
	}
	if s.token != (eventloop.Token{}) {
		c.part.loop.set.Forget(s.token)
		s.token = eventloop.Token{}
	}
	sockio.Close(int(s.fd))
	s.fd = -1
}

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
