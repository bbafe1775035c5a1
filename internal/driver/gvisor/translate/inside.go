package translate

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// segment handles a segment of the namespace (RFC 9293, 3.10.7.4).
func (c *conn) segment(s *segment) {
	c.heard = c.t.cfg.Now()
	switch {
	case c.state == calling:
		c.answer(s)
	case s.has(header.TCPFlagRst):
		c.reset(s)
	case s.has(header.TCPFlagSyn):
		c.synAgain(s)
	case !s.has(header.TCPFlagAck) || c.state == opening:
	case !c.acceptable(s):
		c.ack()
	case c.acknowledge(s):
		if s.length() > 0 || c.old(s) {
			c.data(s)
		}
		if !c.ended {
			c.receive()
			c.finish()
		}
	}
}

// old reports whether a segment begins before what is expected. Without data, it is a
// question whether the connection is there, or has a window.
func (c *conn) old(s *segment) bool { return int32(s.seq-c.rcvNxt) < 0 }

// acceptable reports whether a segment is within the window, or before it: the
// acknowledgement of an old segment may be new.
func (c *conn) acceptable(s *segment) bool {
	if c.old(s) {
		return c.state == open
	}
	return s.seq == c.rcvNxt || int32(s.seq-c.rcvEdge) <= 0
}

// reset handles a RST. One that is not where the next byte would be may be forged, or
// old: a genuine peer answers the acknowledgement with another.
func (c *conn) reset(s *segment) {
	switch {
	case s.seq == c.rcvNxt && c.finGot && c.sent.size == 0:
		c.forgotten()
	case s.seq == c.rcvNxt:
		c.drop(ErrReset)
	case c.state != opening && s.seq-c.rcvNxt < c.rcvEdge-c.rcvNxt:
		c.ack()
	}
}

// synAgain handles a SYN within a connection.
func (c *conn) synAgain(s *segment) {
	switch {
	case c.state == opening && !s.opens():
	case c.state == opening && s.seq != c.rcvNxt-1: // the namespace has given up the old attempt
		c.drop(ErrReset)
		c.t.open(s)
	case c.state == opening:
		c.t.opening.repeated(c)
	case c.state == accepted && s.seq == c.rcvNxt-1:
		c.sendSyn(header.TCPFlagSyn | header.TCPFlagAck)
	default:
		c.ack()
	}
}

// acknowledge handles the acknowledgement and the window of a segment. It returns false
// if the segment is to be ignored.
func (c *conn) acknowledge(s *segment) bool {
	if ahead := s.ack - c.sndUna; ahead > c.outstanding() {
		if int32(ahead) < 0 {
			return c.state == open // an old one, perhaps with new data
		}
		if c.state == accepted {
			c.abort(ErrReset)
		} else {
			c.ack() // of what was never sent
		}
		return false
	}
	if c.state == accepted {
		if s.ack == c.sndUna {
			return false // not yet of the SYN-ACK
		}
		c.state = open
		c.sndUna++
		c.moved, c.tries = c.heard, 0
		c.wl1 = s.seq
		c.readable = true // an edge may have come before
	}
	// The window begins at the acknowledgement: with a new one, the last window would
	// reach too far, also if the segment is a repeated one.
	newest := s.ack != c.sndUna || int32(s.seq-c.wl1) >= 0
	c.progress(s)
	if newest {
		c.setWindow(s)
	}
	return true
}

// progress forgets what has been acknowledged.
func (c *conn) progress(s *segment) {
	n := s.ack - c.sndUna
	switch {
	case n > 0:
		c.sndUna = s.ack
		c.sent.acknowledge(&c.t.chunks, int(n)) // a FIN takes a number, but no byte
		c.moved, c.tries, c.dups = c.heard, 0, 0
		if c.outstanding() > 0 {
			c.schedule(firstRetry)
		}
	case s.length() == 0 && c.outstanding() > 0 && c.windowOf(s) == c.sndWnd:
		if c.dups++; c.dups == 3 {
			c.repeat()
		}
	}
}

func (c *conn) windowOf(s *segment) uint32 {
	if c.scaled {
		return uint32(s.window) << c.scale
	}
	return uint32(s.window)
}

func (c *conn) setWindow(s *segment) {
	c.wl1 = s.seq
	c.sndWnd = c.windowOf(s)
	c.sndMax = max(c.sndMax, c.sndWnd)
}

// data handles the payload and the FIN of a segment: what is new, and within the
// window.
func (c *conn) data(s *segment) {
	known := c.rcvNxt - s.seq
	if int32(known) < 0 || known >= s.length() || c.finGot {
		c.ack() // a gap, or nothing new
		return
	}
	payload := s.payload[min(known, uint32(len(s.payload))):]
	fin := s.has(header.TCPFlagFin)
	if space := c.rcvEdge - c.rcvNxt; uint32(len(payload)) > space {
		payload, fin = payload[:space], false
	}
	taken, ok := c.take(payload)
	if !ok {
		return
	}
	switch {
	case fin && taken == len(payload):
		c.finGot = true
		c.rcvNxt++
		c.shutdown()
	case taken == 0:
		c.ack() // there is no room, and the namespace may be asking for it
		return
	}
	c.ackLater(taken)
}

// take sends data to the socket, and keeps what it does not take. It returns false if
// that has ended the connection.
func (c *conn) take(data []byte) (taken int, ok bool) {
	if len(data) == 0 {
		return 0, true
	}
	if len(c.unsent) == 0 {
		n, errno := c.socket.Send(data)
		if errno != 0 && errno != unix.EAGAIN {
			c.abort(errno)
			return 0, false
		}
		if errno == 0 {
			taken = n
		}
	}
	if rest := data[taken:]; len(rest) > 0 && c.t.unsent+len(rest) <= unsentBudget {
		c.unsent = append(c.unsent, rest...)
		c.t.unsent += len(rest)
		taken = len(data)
	}
	c.rcvNxt += uint32(taken)
	if c.call != nil {
		c.call.Out.Add(uint64(taken))
	}
	return taken, true
}

// shutdown tells the socket that the namespace has ended its direction.
func (c *conn) shutdown() {
	if c.finGot && !c.shut && len(c.unsent) == 0 {
		c.shut = true
		if !c.finSent { // otherwise it will be closed
			c.socket.ShutdownWrite()
		}
	}
}
