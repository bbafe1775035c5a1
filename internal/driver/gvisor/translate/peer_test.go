package translate

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

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

// accepted asks for a connection, and gets the SYN-ACK.
func (p *peer) accepted() *peer {
	p.w.t.Helper()
	p.syn()
	p.socket = p.w.sockets[len(p.w.sockets)-1]
	p.event(unix.EPOLLOUT)
	p.irs = p.one("S.").seq
	p.sent, p.got = 1, 1
	return p
}

// open makes a connection.
func (p *peer) open() *peer {
	p.w.t.Helper()
	p.accepted()
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
	if n := len(p.w.tr.conns); n == 0 && (p.w.tr.chunks.used != 0 || p.w.tr.unsent != 0 || p.w.tr.timers.Len() != 0) {
		p.w.t.Fatalf("%d chunks, %d bytes and %d timers are left", p.w.tr.chunks.used, p.w.tr.unsent, p.w.tr.timers.Len())
	}
}
