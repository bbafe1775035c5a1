package translate

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// world is a Translator between a namespace and a host that the test plays: it gives
// the segments of the one and the events of the other, and looks at what comes.
type world struct {
	t       testing.TB
	now     time.Duration
	tr      *Translator
	out     []segment // to the namespace, not yet looked at
	lose    func(segment) bool
	rejects []string
	sockets []*fakeSocket
	dialErr error
	v6      bool
	mtu     int
}

const testMTU = 1500

func newWorld(t testing.TB) *world { return newWorldMTU(t, testMTU) }

func newWorldMTU(t testing.TB, mtu int) *world {
	w := &world{t: t, mtu: mtu}
	w.tr = New(Config{
		Link: w, MTU: mtu, Max: 1000, Now: func() time.Duration { return w.now },
		Dial: func(_, target netip.AddrPort) (Socket, error) {
			if w.dialErr != nil {
				return nil, w.dialErr
			}
			s := &fakeSocket{target: target, room: 1 << 30}
			w.sockets = append(w.sockets, s)
			return s, nil
		},
		Reject: func(err error, source, target netip.AddrPort, seq uint32) {
			w.rejects = append(w.rejects, fmt.Sprintf("%v %s %s %d", err, source, target, seq))
		},
	})
	return w
}

// Send implements Link: it checks the packet, and cuts it into segments.
func (w *world) Send(head []byte, ip int, payload []byte, size int) {
	b := append(bytes.Clone(head[Headroom:]), payload...)
	w.checkPacket(b, ip)
	s, ok := parse(b)
	if !ok {
		w.t.Fatalf("a malformed packet: %x", b[:min(len(b), 80)])
	}
	s.flow.inside, s.flow.outside = s.flow.outside, s.flow.inside
	s.flow.insidePort, s.flow.outsidePort = s.flow.outsidePort, s.flow.insidePort
	for first := true; first || len(s.payload) > 0; first = false {
		piece := s
		n := min(len(s.payload), size)
		piece.payload = s.payload[:n]
		if n < len(s.payload) {
			piece.flags &^= header.TCPFlagFin | header.TCPFlagPsh
		}
		s.payload, s.seq = s.payload[n:], s.seq+uint32(n)
		if w.lose == nil || !w.lose(piece) {
			w.out = append(w.out, piece)
		}
		if len(s.payload) == 0 {
			return
		}
	}
}

// checkPacket checks lengths and sums.
func (w *world) checkPacket(b []byte, ip int) {
	w.t.Helper()
	size := len(b) - ip
	var src, dst []byte
	if b[0]>>4 == 4 {
		if h := header.IPv4(b); int(h.TotalLength()) != len(b) || ^h.CalculateChecksum() != 0 || int(h.HeaderLength()) != ip {
			w.t.Fatalf("an IPv4 header that is wrong: %x", b[:ip])
		}
		src, dst = b[12:16], b[16:20]
	} else {
		if h := header.IPv6(b); int(h.PayloadLength()) != size || ip != header.IPv6MinimumSize {
			w.t.Fatalf("an IPv6 header that is wrong: %x", b[:ip])
		}
		src, dst = b[8:24], b[24:40]
	}
	if len(b) > 1<<16-1 {
		w.t.Fatalf("a packet of %d bytes", len(b))
	}
	want := checksum.Checksum(append(append(bytes.Clone(src), dst...), 0, byte(header.TCPProtocolNumber), byte(size>>8), byte(size)), 0)
	if got := header.TCP(b[ip:]).Checksum(); got != want {
		w.t.Fatalf("the sum of the pseudo header is %#x, want %#x", got, want)
	}
}

// round ends a round, until there is no more to do.
func (w *world) round() {
	for range 1000 {
		if !w.tr.EndRound() {
			return
		}
	}
	w.t.Fatal("there is always more to do")
}

// pass lets time pass, with all that is due in it.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	for end := w.now + d; ; {
		next := w.tr.Timeout()
		if next < 0 || w.now+next > end {
			w.now = end
			return
		}
		if next == 0 {
			next = time.Microsecond
		}
		w.now += next
		w.tr.Fire()
		w.round()
	}
}

// take returns what was sent to the namespace since the last time.
func (w *world) take() []segment {
	out := w.out
	w.out = nil
	return out
}

// fakeSocket is a socket of the host.
type fakeSocket struct {
	target  netip.AddrPort
	watcher Watcher
	err     unix.Errno // SO_ERROR

	input   []byte // to receive
	eof     bool
	recvErr unix.Errno
	urgent  int // bytes in front of urgent data

	output  []byte // was sent
	room    int
	sendErr unix.Errno

	shut, closed, reset bool
}

func (s *fakeSocket) Watch(w Watcher) error { s.watcher = w; return nil }

func (s *fakeSocket) Connected() unix.Errno {
	e := s.err
	s.err = 0
	return e
}

func (s *fakeSocket) Recv(b []byte) (int, unix.Errno) {
	switch {
	case s.closed:
		panic("a closed socket was used")
	case len(s.input) > 0:
		n := copy(b, s.input)
		if s.urgent > 0 {
			n = min(n, s.urgent) // the kernel stops there once
			s.urgent -= n
		}
		s.input = s.input[n:]
		return n, 0
	case s.recvErr != 0: // the kernel reports an error once, and then the end
		errno := s.recvErr
		s.recvErr, s.eof, s.sendErr = 0, true, unix.EPIPE
		return 0, errno
	case s.eof:
		return 0, 0
	}
	return 0, unix.EAGAIN
}

func (s *fakeSocket) Send(b []byte) (int, unix.Errno) {
	switch {
	case s.closed:
		panic("a closed socket was used")
	case s.shut:
		return 0, unix.EPIPE
	case s.sendErr != 0:
		return 0, s.sendErr
	case s.room == 0:
		return 0, unix.EAGAIN
	}
	n := min(len(b), s.room)
	s.output = append(s.output, b[:n]...)
	s.room -= n
	return n, 0
}

func (s *fakeSocket) ShutdownWrite() { s.shut = true }
func (s *fakeSocket) Close()         { s.closed = true }
func (s *fakeSocket) Reset()         { s.closed, s.reset = true, true }

// peer is the namespace's side of a connection. Its numbers are what a program of the
// namespace has sent and got; scripts use offsets from the initial ones.
type peer struct {
	w        *world
	flow     flow
	iss, irs uint32
	sent     uint32 // the offset of what it sends next
	got      uint32 // the offset of what it expects
	window   uint16
	options  []byte
	socket   *fakeSocket
}

func (w *world) peer(port uint16) *peer {
	f := flow{inside: mapped([4]byte{10, 0, 2, 100}), outside: mapped([4]byte{198, 51, 100, 7}), insidePort: port, outsidePort: 80, v4: true}
	if w.v6 {
		f = flow{insidePort: port, outsidePort: 80}
		f.inside, f.outside = netip.MustParseAddr("fd00::100").As16(), netip.MustParseAddr("2001:db8::7").As16()
	}
	// Close to the end of the numbers, so that they turn over.
	return &peer{w: w, flow: f, iss: 0xffff_ff00 + uint32(port), window: 1000, options: wsOption(7)}
}

func mssOption(mss int) []byte   { return []byte{2, 4, byte(mss >> 8), byte(mss)} }
func wsOption(scale byte) []byte { return append(mssOption(1460), 1, 3, 3, scale) }

// raw sends a segment, with numbers as offsets.
func (p *peer) raw(flags header.TCPFlags, seq, ack uint32, payload []byte) {
	s := segment{flow: p.flow, seq: p.iss + seq, ack: p.irs + ack, window: p.window, flags: flags, payload: payload}
	if flags&header.TCPFlagSyn != 0 {
		s.options = p.options
	}
	p.w.tr.Packet(s.packet())
}

// packet makes the IP packet of a segment.
func (s *segment) packet() []byte {
	tcp := make([]byte, 20, 20+len(s.options)+len(s.payload))
	binary.BigEndian.PutUint16(tcp[0:], s.flow.insidePort)
	binary.BigEndian.PutUint16(tcp[2:], s.flow.outsidePort)
	binary.BigEndian.PutUint32(tcp[4:], s.seq)
	binary.BigEndian.PutUint32(tcp[8:], s.ack)
	tcp[12], tcp[13] = byte(20+len(s.options))<<2, byte(s.flags)
	binary.BigEndian.PutUint16(tcp[14:], s.window)
	tcp = append(append(tcp, s.options...), s.payload...)
	if s.flow.v4 {
		ip := make([]byte, 20)
		ip[0], ip[8], ip[9] = 0x45, 64, 6
		binary.BigEndian.PutUint16(ip[2:], uint16(20+len(tcp)))
		copy(ip[12:], s.flow.inside[12:])
		copy(ip[16:], s.flow.outside[12:])
		return append(ip, tcp...)
	}
	ip := make([]byte, 40)
	ip[0], ip[6], ip[7] = 0x60, 6, 64
	binary.BigEndian.PutUint16(ip[4:], uint16(len(tcp)))
	copy(ip[8:], s.flow.inside[:])
	copy(ip[24:], s.flow.outside[:])
	return append(ip, tcp...)
}

func (p *peer) syn() { p.raw(header.TCPFlagSyn, 0, 0, nil) }

// event gives an event of the host's socket.
func (p *peer) event(events uint32) {
	p.socket.watcher.Ready(events)
	p.w.round()
}

// open makes a connection.
func (p *peer) open() *peer {
	p.w.t.Helper()
	p.syn()
	p.socket = p.w.sockets[len(p.w.sockets)-1]
	p.event(unix.EPOLLOUT)
	s := p.one("S.")
	p.irs = s.seq
	p.sent, p.got = 1, 1
	p.raw(header.TCPFlagAck, p.sent, p.got, nil)
	p.w.round()
	p.none()
	return p
}

// send sends data, and the end of the round.
func (p *peer) send(data string) {
	p.raw(header.TCPFlagAck|header.TCPFlagPsh, p.sent, p.got, []byte(data))
	p.sent += uint32(len(data))
	p.w.round()
}

func (p *peer) fin() {
	p.raw(header.TCPFlagAck|header.TCPFlagFin, p.sent, p.got, nil)
	p.sent++
	p.w.round()
}

// ackAll acknowledges what has come.
func (p *peer) ackAll() {
	p.raw(header.TCPFlagAck, p.sent, p.got, nil)
	p.w.round()
}

// mine returns the segments that have come for the connection.
func (p *peer) mine() (all []segment) {
	var rest []segment
	for _, s := range p.w.take() {
		if s.flow == p.flow {
			all = append(all, s)
		} else {
			rest = append(rest, s)
		}
	}
	p.w.out = rest
	return all
}

// one expects a single segment with these flags, as tcpdump(8) names them.
func (p *peer) one(flags string) segment {
	p.w.t.Helper()
	all := p.mine()
	if len(all) != 1 || flagNames(all[0].flags) != flags {
		p.w.t.Fatalf("got %s, want one %s", p.describe(all), flags)
	}
	return all[0]
}

func (p *peer) none() {
	p.w.t.Helper()
	if all := p.mine(); len(all) > 0 {
		p.w.t.Fatalf("got %s, want nothing", p.describe(all))
	}
}

// acked expects an acknowledgement of all that was sent.
func (p *peer) acked() {
	p.w.t.Helper()
	if s := p.one("."); s.ack != p.iss+p.sent || len(s.payload) > 0 {
		p.w.t.Fatalf("got %s, want an acknowledgement of %d", p.describe([]segment{s}), p.sent)
	}
}

// data expects bytes in order, acknowledges them, and returns true at the end.
func (p *peer) data(want string) (end bool) {
	p.w.t.Helper()
	all := p.mine()
	var got strings.Builder
	for _, s := range all {
		if s.seq-p.irs != p.got {
			p.w.t.Fatalf("got %s, expected %d", p.describe(all), p.got)
		}
		got.Write(s.payload)
		p.got += s.length()
		end = end || s.has(header.TCPFlagFin)
	}
	if got.String() != want {
		p.w.t.Fatalf("got %q of %s, want %q", got.String(), p.describe(all), want)
	}
	p.ackAll()
	return end
}

func (p *peer) describe(all []segment) string {
	var b strings.Builder
	for _, s := range all {
		fmt.Fprintf(&b, "[%s seq %d ack %d win %d len %d]", flagNames(s.flags), s.seq-p.irs, s.ack-p.iss, s.window, len(s.payload))
	}
	if len(all) == 0 {
		return "nothing"
	}
	return b.String()
}

func flagNames(f header.TCPFlags) string {
	names := ""
	for _, n := range []struct {
		flag header.TCPFlags
		name string
	}{{header.TCPFlagSyn, "S"}, {header.TCPFlagFin, "F"}, {header.TCPFlagRst, "R"}, {header.TCPFlagPsh, "P"}, {header.TCPFlagAck, "."}} {
		if f&n.flag != 0 {
			names += n.name
		}
	}
	return names
}

// gone expects that the connection is forgotten.
func (p *peer) gone() {
	p.w.t.Helper()
	if p.w.tr.conns[p.flow] != nil {
		p.w.t.Fatal("the connection is still there")
	}
	if !p.socket.closed {
		p.w.t.Fatal("its socket is open")
	}
	if n := p.w.tr.Len(); n == 0 && (p.w.tr.chunks.used != 0 || p.w.tr.unsent != 0 || len(p.w.tr.timers) != 0) {
		p.w.t.Fatalf("%d chunks, %d bytes and %d timers are left", p.w.tr.chunks.used, p.w.tr.unsent, len(p.w.tr.timers))
	}
}
