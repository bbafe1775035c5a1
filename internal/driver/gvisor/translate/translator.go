package translate

import (
	"hash/maphash"
	"math/bits"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"rootlesskit/internal/eventloop"
)

// Socket is the host's side of a connection: a nonblocking stream socket.
type Socket interface {
	// Watch calls w whenever the socket has an event, until it is closed. Like those
	// of an edge-triggered epoll(7), an event says what has become possible.
	Watch(w eventloop.Handler) error
	// Connected returns how the attempt to connect has ended: EINPROGRESS, if it has not.
	Connected() unix.Errno
	Recv(b []byte) (int, unix.Errno)
	Send(b []byte) (int, unix.Errno)
	ShutdownWrite()
	Close()
	// Reset closes the socket, and resets its connection.
	Reset()
}

// Link is the way to the namespace.
type Link interface {
	// Send sends an IP packet. headers has Headroom bytes in front of the IP header,
	// whose length is ip; the TCP header has the sum of the pseudo header for its
	// checksum. A payload of more than segment bytes is cut into pieces of that size.
	Send(headers []byte, ip int, payload []byte, segment int)
}

// Config is what a Translator works with.
type Config struct {
	Link Link
	// MTU is the link's.
	MTU int
	// Max is how many connections there may be.
	Max int
	// Dial makes a socket that connects to a destination of the namespace.
	Dial func(source, target netip.AddrPort) (Socket, error)
	// Reject tells the namespace by ICMP why its SYN has no answer.
	Reject func(err error, source, target netip.AddrPort, seq uint32)
	// Now is the time since some moment.
	Now func() time.Duration
}

// Translator has the connections of a namespace.
type Translator struct {
	cfg     Config
	conns   map[flow]*conn
	opening openings
	chunks  chunkPool
	unsent  int // bytes of all connections
	timers  eventloop.Timers

	toAck   []*conn // at the end of the round
	late    []*conn // acknowledged with a reply, or when it is time
	again   []*conn // have more to read
	starved []*conn // wait for a chunk
	spare   []*conn

	seed maphash.Seed // of the first numbers
	head headers
}

// New makes a Translator.
func New(cfg Config) *Translator {
	return &Translator{cfg: cfg, conns: map[flow]*conn{}, opening: newOpenings(cfg.Max), seed: maphash.MakeSeed()}
}

// Packet handles a packet of the namespace, and does not keep it. It returns false if
// the packet is not a plain one of TCP.
func (t *Translator) Packet(b []byte) bool {
	s, ok := parse(b)
	if ok {
		t.segment(&s)
	}
	return ok
}

// Segment is Packet for a segment whose packet had to be reassembled.
func (t *Translator) Segment(source, target netip.Addr, tcp []byte) {
	s := segment{flow: flowOf(netip.AddrPortFrom(source, 0), netip.AddrPortFrom(target, 0))}
	if s.parseTCP(tcp) {
		t.segment(&s)
	}
}

func (t *Translator) segment(s *segment) {
	switch c := t.conns[s.flow]; {
	case c != nil:
		c.segment(s)
	case s.opens():
		t.open(s)
	default:
		t.unknown(s)
	}
}

// open begins a connection with the SYN of the namespace.
func (t *Translator) open(s *segment) {
	if !t.opening.room(t) {
		return // it will be repeated
	}
	c := newConn(t, s.flow)
	c.offered(s)
	socket, err := t.cfg.Dial(s.flow.source(), s.flow.target())
	if err != nil {
		c.refuse(err)
		return
	}
	c.socket = socket
	if err := socket.Watch(c); err != nil {
		socket.Close()
		c.refuse(err)
		return
	}
	t.conns[s.flow] = c
	t.opening.add(c)
	c.schedule(openingCheck)
}

// unknown answers a segment of no connection (RFC 9293, 3.10.7.1).
func (t *Translator) unknown(s *segment) {
	if to := s.flow.target().Addr(); s.has(header.TCPFlagRst) || to.IsMulticast() || to.IsUnspecified() {
		return
	}
	c := conn{t: t, flow: s.flow, rcvNxt: s.seq + s.length()}
	if s.has(header.TCPFlagSyn) {
		c.rcvNxt++
	}
	if s.has(header.TCPFlagAck) {
		c.send(header.TCPFlagRst, s.ack, nil)
	} else {
		c.sendReset(0)
	}
}

// EndRound is called when the events and frames of a round have been handled. It
// returns true if there is more to do without any event.
func (t *Translator) EndRound() (more bool) {
	again := t.again
	t.again, t.spare = t.spare[:0], again
	for _, c := range again {
		c.queued = false
		c.receive()
	}
	for _, c := range t.toAck {
		c.acking = false
		if !c.ended && c.acked != c.rcvNxt {
			c.ack()
		}
	}
	t.toAck = t.toAck[:0]
	t.feed()
	return len(t.again) > 0
}

// feed lets those go on that waited for a chunk.
func (t *Translator) feed() {
	for len(t.starved) > 0 && t.chunks.used < maxAllChunks {
		c := t.starved[0]
		t.starved = t.starved[1:]
		c.starving = false
		c.receive()
	}
}

// Trim lets go of memory that was kept for the next connections.
func (t *Translator) Trim() { t.chunks.spare = nil }

// Close resets all connections, on both sides. No others begin.
func (t *Translator) Close() {
	t.cfg.Max = 0
	for _, c := range t.conns {
		c.abort(ErrClosed)
	}
}

// The bounds of what is kept for sockets that do not take it. The windows that are
// offered may add up to more than there is: what does not fit then is not acknowledged,
// and comes again.
const (
	unsentBudget = 128 << 20 // of all connections
	maxUnsent    = 1 << 20   // of a connection
	// minUnsent is at least two segments: a sender waits for room for one, and a
	// window that is smaller would stop it until a timer runs out.
	minUnsent = 128 << 10
)

// share is how much of a connection may be kept: the less the more there are. It takes
// few values.
func (t *Translator) share() int {
	octave := 1 << bits.Len(uint(max(len(t.conns)-1, 0)))
	return min(max(unsentBudget/2/octave, minUnsent), maxUnsent)
}

// room is how much more the connection may send.
func (t *Translator) room(c *conn) int { return max(0, t.share()-len(c.unsent)) }

// mss is the largest segment that the link carries.
func (t *Translator) mss(v4 bool) uint16 {
	if v4 {
		return uint16(t.cfg.MTU - header.IPv4MinimumSize - header.TCPMinimumSize)
	}
	return uint16(t.cfg.MTU - header.IPv6MinimumSize - header.TCPMinimumSize)
}

// remove forgets a connection, whose socket has been closed.
func (t *Translator) remove(c *conn) {
	c.ended = true
	delete(t.conns, c.flow)
	t.opening.remove(c)
	t.timers.Stop(&c.timer)
	c.sent.acknowledge(&t.chunks, c.sent.size)
	c.sent.tidy(&t.chunks)
	t.unsent -= len(c.unsent)
	c.unsent = nil
}
