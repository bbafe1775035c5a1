package translate

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"rootlesskit/internal/eventloop"
)

type state uint8

const (
	opening  state = iota // the socket connects
	accepted              // SYN-ACK was sent
	calling               // SYN was sent
	open
)

// conn is one connection. Numbers are those of RFC 9293, 3.3.1, and the namespace's
// view: rcvNxt is what it sends next.
type conn struct {
	t      *Translator
	flow   flow
	state  state
	ended  bool
	socket Socket
	call   *Call  // nil: the namespace made it
	mss    uint16 // of segments to the namespace
	scale  uint8  // of the windows that it offers
	scaled bool   // both sides scale

	// From the namespace.
	rcvNxt  uint32
	rcvEdge uint32 // of the window that was offered
	acked   uint32 // what was acknowledged last
	unsent  []byte // what the socket did not take yet
	finGot  bool
	shut    bool // the socket was told

	// To the namespace.
	sndUna, sndNxt uint32
	sndWnd         uint32
	sndMax         uint32 // the largest window that was offered
	wl1            uint32 // number of the segment that offered it
	sent           sentBytes
	finSent        bool
	readable       bool // the socket may have something to read
	unsure         bool // ... although a read was short: before the end, or urgent data
	dups           int  // acknowledgements of nothing new, in a row

	queued, starving bool // is in again, in starved
	acking, delayed  bool // is in toAck, in late
	delayedAt        time.Duration
	pure             int // acknowledgements without data since the last data
	turns            int // data after one of these, in a row

	timer eventloop.Timer
	// heard is when the namespace was heard last, moved when it last acknowledged
	// something new, or when there was nothing to acknowledge.
	heard, moved time.Duration
	first        time.Duration // when its state began
	asked        time.Duration // when it was asked whether it is there
	tries        int           // of what the timer repeats
	misses       int           // of these, in a row, in which nothing was heard
	place        place         // in the openings
}

// newConn makes a connection that begins now.
func newConn(t *Translator, f flow) *conn {
	now := t.cfg.Now()
	c := &conn{t: t, flow: f, heard: now, moved: now, first: now}
	c.timer = eventloop.NewTimer(c.look)
	return c
}

// offered takes over what a SYN or SYN-ACK of the namespace says.
func (c *conn) offered(s *segment) {
	o := parseOptions(s.options)
	c.mss, c.scaled, c.scale = min(o.mss, c.t.mss(c.flow.v4)), o.scaled, o.scale
	c.rcvNxt, c.acked, c.rcvEdge = s.seq+1, s.seq+1, s.seq+1
	c.sndWnd, c.sndMax, c.wl1 = uint32(s.window), uint32(s.window), s.seq
}

// refuse answers the SYN as the host was answered. A host may have accepted the
// connection and ended it before anybody has looked.
func (c *conn) refuse(err error) {
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) {
		c.sendReset(0)
		return
	}
	c.t.cfg.Reject(err, c.flow.source(), c.flow.target(), c.rcvNxt-1)
}

// connected handles the end of the socket's attempt to connect.
func (c *conn) connected() bool {
	t := c.t
	errno := c.socket.Connected()
	if errno == unix.EINPROGRESS {
		return false
	}
	t.opening.remove(c)
	if errno != 0 {
		c.refuse(errno)
		c.socket.Close()
		t.remove(c)
		return false
	}
	c.state = accepted
	c.number()
	c.moved, c.first = t.cfg.Now(), t.cfg.Now()
	c.sendSyn(header.TCPFlagSyn | header.TCPFlagAck)
	c.schedule(firstRetry)
	return true
}

// abort resets both sides.
func (c *conn) abort(why error) {
	if c.ended {
		return
	}
	c.sendReset(c.sndNxt)
	c.drop(why)
}

// drop resets the host's side, after the namespace's has ended.
func (c *conn) drop(why error) {
	if c.ended {
		return
	}
	c.socket.Reset()
	c.end(why)
}

// end forgets the connection, whose socket is closed.
func (c *conn) end(why error) {
	c.t.remove(c)
	if c.call != nil {
		c.call.Ended(why)
	}
}

// forgotten is called when the namespace has sent everything, and then has forgotten the
// connection, as Linux does a minute after its program has closed it. The host still
// gets what is on its way.
func (c *conn) forgotten() {
	c.finSent, c.readable = true, false
	c.sndUna, c.acked = c.sndNxt, c.rcvNxt
	c.finish()
}

// finish forgets the connection when both directions have ended.
func (c *conn) finish() {
	if c.ended || !c.finGot || !c.finSent || c.sndUna != c.sndNxt || len(c.unsent) > 0 {
		return
	}
	if c.acked != c.rcvNxt {
		c.ack()
	}
	c.socket.Close()
	c.end(nil)
}

// outstanding is how much the namespace has not acknowledged.
func (c *conn) outstanding() uint32 { return c.sndNxt - c.sndUna }
