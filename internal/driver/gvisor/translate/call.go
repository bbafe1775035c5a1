package translate

import (
	"errors"
	"hash/maphash"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// Call is a connection to the namespace for a client of the host, whose socket is
// connected.
type Call struct {
	Socket Socket
	// Source is what the namespace sees as the client. Another port is taken if the
	// pair of source and target is in use.
	Source, Target netip.AddrPort
	// Opened is called when the namespace has accepted: from then on the socket belongs
	// to the Translator.
	Opened func()
	// Ended is called at the end, with the reason if it did not come from both sides.
	Ended func(err error)
	// In and Out count bytes to and from the namespace.
	In, Out *atomic.Uint64
}

// Why a connection ended.
var (
	ErrReset  = errors.New("connection reset by the namespace")
	ErrClosed = errors.New("the port was closed")
)

// callTime is how long the namespace may take to accept.
const callTime = 30 * time.Second

// Call calls the namespace. It returns a function that ends the connection.
func (t *Translator) Call(call Call) (end func(), err error) {
	f := flowOf(call.Target, call.Source)
	if !t.findPort(&f) {
		return nil, unix.EADDRNOTAVAIL
	}
	c := newConn(t, f)
	c.state, c.socket, c.call = calling, call.Socket, &call
	c.mss, c.scaled = defaultMSS, true
	c.number()
	t.conns[f] = c
	c.sendSyn(header.TCPFlagSyn)
	c.schedule(firstRetry)
	return c.abortClosed, nil
}

// findPort takes another port if the flow is in use.
func (t *Translator) findPort(f *flow) bool {
	const first, tries = 32768, 100 // Linux: ip_local_port_range
	for range tries {
		if f.outsidePort != 0 && t.conns[*f] == nil {
			return true
		}
		f.outsidePort = uint16(first + rand.IntN(1<<16-first))
	}
	return false
}

// number chooses the first number. It grows with time (RFC 6528), so that a server that
// still remembers the last connection of a client's port takes the next one.
func (c *conn) number() {
	const tick = 64 * time.Nanosecond // Linux's
	c.sndUna = uint32(maphash.Comparable(c.t.seed, c.flow)) + uint32(c.t.cfg.Now()/tick)
	c.sndNxt = c.sndUna + 1 // the SYN takes one
}

// answer handles a segment for a call.
func (c *conn) answer(s *segment) {
	valid := s.has(header.TCPFlagAck) && s.ack == c.sndNxt
	switch {
	case s.has(header.TCPFlagRst):
		if valid {
			c.refused(unix.ECONNREFUSED)
		}
	case s.has(header.TCPFlagAck) && !valid: // of a connection that is long forgotten here
		c.send(header.TCPFlagRst, s.ack, nil)
		c.sendSyn(header.TCPFlagSyn)
	case valid && s.has(header.TCPFlagSyn):
		c.accept(s)
	}
}

// accept handles the SYN-ACK.
func (c *conn) accept(s *segment) {
	c.offered(s)
	c.sndUna = s.ack
	c.moved, c.tries = c.heard, 0
	c.state = open
	c.send(header.TCPFlagAck, c.sndNxt, nil)
	c.call.Opened()
	if err := c.socket.Watch(c); err != nil {
		c.abort(err)
	}
}

// refused ends a call. The socket is the caller's, who may have another address to try.
func (c *conn) refused(err error) {
	ended := c.call.Ended
	c.t.remove(c)
	ended(err)
}

func (c *conn) abortClosed() { c.abort(ErrClosed) }

// Unreachable handles an ICMP error about a segment to the namespace.
func (t *Translator) Unreachable(source, target netip.AddrPort, err error) {
	if c := t.conns[flowOf(target, source)]; c != nil && c.state == calling {
		c.refused(err)
	}
}
