package translate

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// model is a simple endpoint of the namespace, behind a way that loses, doubles and
// reorders. It has no delayed acknowledgements, and goes back to the oldest byte when
// its timer fires.
type model struct {
	r    *rand.Rand
	w    *world
	flow flow
	mss  int

	scale    uint8 // of both windows; noScale: none
	up       []byte
	iss      uint32
	una, nxt uint32 // offsets: 0 is the SYN, then the bytes, then the FIN
	edge     uint32 // of the window
	timer    time.Duration
	tries    int
	dups     int

	irs     uint32
	opened  bool
	down    []byte            // in order
	early   map[uint32][]byte // out of order, by offset in down
	eof     uint32            // offset of the FIN in down, plus one
	buffer  int               // how much is kept for the program
	offered uint32            // the edge of the window
	unread  int
	done    bool // a reset in the end

	wire []packetAt
	fail string
}

const noScale = 0xff

// packetAt is a segment on its way, in one of the directions.
type packetAt struct {
	when    time.Duration
	inwards bool // to the model
	s       segment
}

// travel puts a segment on the way.
func (m *model) travel(inwards bool, s segment) {
	s.payload = bytes.Clone(s.payload)
	for range 1 + b2i(m.r.IntN(100) == 0) {
		if m.r.IntN(100) == 0 {
			continue
		}
		delay := time.Duration(m.r.IntN(100)) * time.Microsecond
		if m.r.IntN(50) == 0 {
			delay += time.Duration(m.r.IntN(5)) * time.Millisecond
		}
		m.wire = append(m.wire, packetAt{m.w.now + delay, inwards, s})
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// deliver delivers what is due, in the order of arrival.
func (m *model) deliver() {
	slices.SortStableFunc(m.wire, func(a, b packetAt) int { return int(a.when - b.when) })
	for len(m.wire) > 0 && m.wire[0].when <= m.w.now {
		p := m.wire[0]
		m.wire = m.wire[1:]
		if p.inwards {
			m.receive(&p.s)
		} else {
			m.w.tr.Packet(p.s.packet())
		}
	}
}

func (m *model) receive(s *segment) {
	switch {
	case s.has(header.TCPFlagRst) && m.nxt == uint32(len(m.up))+2 && m.eof > 0:
		m.done = true // in LAST-ACK: the last acknowledgement was lost
	case s.has(header.TCPFlagRst):
		m.fail = "a reset"
		return
	case s.has(header.TCPFlagSyn):
		if !m.opened {
			m.opened, m.irs = true, s.seq+1
			m.una = 1
			m.edge = 1 + uint32(s.window)
			m.timer, m.tries = 0, 0
		}
		m.send(header.TCPFlagAck, m.nxt, nil)
		return
	case !m.opened:
		return
	}
	m.acknowledged(s)
	if s.length() > 0 || s.seq != m.irs+m.expected() {
		m.keep(s)
		m.send(header.TCPFlagAck, m.nxt, nil)
	}
}

func (m *model) acknowledged(s *segment) {
	ack := s.ack - m.iss
	if int32(ack-m.nxt) > 0 && int32(ack-uint32(len(m.up))-2) > 0 {
		m.fail = "an acknowledgement of what was never sent"
		return
	}
	if ack == m.una && s.length() == 0 && m.nxt > ack {
		if m.dups++; m.dups == 3 {
			m.nxt = ack
		}
	}
	if int32(ack-m.una) > 0 {
		m.una, m.tries, m.timer, m.dups = ack, 0, 0, 0
		m.nxt = max(m.nxt, ack)
	}
	window := uint32(s.window)
	if m.scale != noScale {
		window <<= windowScale
	}
	if int32(ack+window-m.edge) > 0 {
		m.edge = ack + window
	}
}

func (m *model) expected() uint32 {
	n := uint32(len(m.down))
	if m.eof > 0 && n == m.eof-1 {
		n++
	}
	return n
}

// window is what the model offers, from its place in the stream of the host.
func (m *model) window() uint16 {
	n := max(0, m.buffer-m.unread)
	if m.scale != noScale {
		n >>= m.scale
	}
	return uint16(min(n, 0xffff))
}

func (m *model) keep(s *segment) {
	at := s.seq - m.irs
	if len(s.payload) > m.mss {
		m.fail = "a segment that is too large"
	}
	if s.has(header.TCPFlagFin) {
		m.eof = at + uint32(len(s.payload)) + 1
	}
	if end := at + s.length(); int32(end-m.offered) > 1 {
		m.fail = "more than the window takes"
	}
	if len(m.early[at]) < len(s.payload) {
		m.early[at] = s.payload
	}
	for again := at <= uint32(len(m.down)); again; {
		again = false
		for at, b := range m.early {
			skip := uint32(len(m.down)) - at
			if int32(skip) < 0 {
				continue
			}
			delete(m.early, at)
			if int(skip) < len(b) {
				m.down = append(m.down, b[skip:]...)
				m.unread += len(b) - int(skip)
				again = true
			}
		}
	}
}

// send sends a segment from an offset.
func (m *model) send(flags header.TCPFlags, from uint32, b []byte) {
	s := segment{flow: m.flow, flags: flags, seq: m.iss + from, ack: m.irs + m.expected(), window: m.window(), payload: b}
	m.offered = max(m.offered, m.expected()+uint32(max(0, m.buffer-m.unread)))
	if flags&header.TCPFlagSyn != 0 {
		s.ack, s.window = 0, uint16(min(m.buffer, 0xffff))
		s.options = mssOption(m.mss)
		if m.scale != noScale {
			s.options = append(s.options, 1, 3, 3, m.scale)
		}
	}
	m.travel(false, s)
}

// pump sends what the window allows, and what is due again.
func (m *model) pump() {
	if m.timer == 0 {
		m.timer = m.w.now + 200*time.Millisecond<<min(m.tries, 5)
	}
	if m.w.now >= m.timer {
		m.timer = 0
		m.tries++
		m.nxt = m.una
		if m.opened && m.nxt == m.edge {
			m.send(header.TCPFlagAck, m.una-1, nil) // asks for the window
		}
	}
	if !m.opened {
		if m.nxt == 0 {
			m.send(header.TCPFlagSyn, 0, nil)
			m.nxt = 1
		}
		return
	}
	end := uint32(len(m.up)) + 1
	for n := 0; n < 20 && m.nxt < end && int32(m.edge-m.nxt) > 0 && m.nxt-m.una < 300_000; n++ {
		n := min(end-m.nxt, m.edge-m.nxt, uint32(1+m.r.IntN(m.mss)))
		flags := header.TCPFlagAck
		if m.nxt+n == end && m.r.IntN(2) == 0 {
			flags |= header.TCPFlagFin
		}
		m.send(flags, m.nxt, m.up[m.nxt-1:m.nxt-1+n])
		m.nxt += n + uint32(b2i(flags&header.TCPFlagFin != 0))
	}
	if m.nxt == end {
		m.send(header.TCPFlagAck|header.TCPFlagFin, m.nxt, nil)
		m.nxt++
	}
}

// read has the program read something.
func (m *model) read() {
	if m.unread > 0 && m.r.IntN(4) == 0 {
		m.unread -= min(m.unread, 1+m.r.IntN(2*m.buffer))
		m.send(header.TCPFlagAck, m.nxt, nil)
	}
}

// host plays the host: it has data at times, and takes some at times.
func (m *model) host(s *fakeSocket, down *[]byte) {
	events := uint32(0)
	if len(*down) > 0 && len(s.input) < 200_000 && m.r.IntN(3) == 0 {
		n := min(len(*down), 1+m.r.IntN(50_000))
		s.input = append(bytes.Clone(s.input), (*down)[:n]...)
		*down = (*down)[n:]
		events |= unix.EPOLLIN
	}
	if len(*down) == 0 && !s.eof {
		s.eof = true
		events |= unix.EPOLLIN | unix.EPOLLRDHUP
	}
	if s.room > 1<<20 { // the beginning
		s.room = 0
		events |= unix.EPOLLOUT
	}
	if s.room < 100_000 && m.r.IntN(3) == 0 {
		s.room += 1 + m.r.IntN(50_000)
		events |= unix.EPOLLOUT
	}
	if events != 0 && !s.closed {
		s.watcher.Ready(events)
	}
}

// TestModel: whatever the way between does, the streams come through, in both
// directions, and nothing is left.
func TestModel(t *testing.T) {
	seeds := 40
	for seed := range uint64(seeds) {
		runModel(t, seed)
	}
}

func runModel(t *testing.T, seed uint64) {
	m := newModel(t, seed)
	w, down := m.w, m.text()
	want := bytes.Clone(down)
	for !m.ended() && m.fail == "" {
		if m.step(&down); w.now > 20*time.Minute {
			m.fail = "no end"
		}
	}
	s := w.sockets[0]
	if m.fail != "" || !bytes.Equal(m.down, want) || !bytes.Equal(s.output, m.up) || s.reset || !s.closed {
		t.Fatalf("seed %d after %s: %q; inside %d of %d bytes, end %d; host %d of %d bytes, reset %v, closed %v", seed, w.now,
			m.fail, len(m.down), len(want), m.eof, len(s.output), len(m.up), s.reset, s.closed)
	}
	w.empty()
}

func newModel(t *testing.T, seed uint64) *model {
	r := rand.New(rand.NewPCG(seed, 1))
	w := newWorldMTU(t, []int{1500, 9000, 65520}[r.IntN(3)])
	m := &model{
		r: r, w: w, flow: w.peer(1).flow, early: map[uint32][]byte{}, buffer: 1000 + r.IntN(400_000), iss: r.Uint32(),
		mss:   min([]int{88, 536, 1460, 8960, 65480}[r.IntN(5)], w.mtu-40),
		scale: []uint8{0, 3, 7, 10, noScale}[r.IntN(5)],
	}
	m.up = m.text()
	return m
}

// text is a stream: a short one or a long one.
func (m *model) text() []byte {
	b := make([]byte, m.r.IntN(1+1<<m.r.IntN(21)))
	for i := range b {
		b[i] = byte(m.r.Uint32())
	}
	return b
}

// ended reports whether both ends have everything, and have forgotten the connection.
func (m *model) ended() bool {
	all := m.una == uint32(len(m.up))+2 && m.eof > 0
	return m.done || all && len(m.w.tr.conns) == 0 && len(m.w.sockets) > 0
}

// step is a moment of the world.
func (m *model) step(down *[]byte) {
	w := m.w
	w.now += time.Duration(50+m.r.IntN(400)) * time.Microsecond
	m.deliver()
	m.pump()
	m.read()
	if n := len(w.sockets); n > 1 {
		m.fail = "another connection"
	} else if n == 1 {
		m.host(w.sockets[0], down)
	}
	w.tr.EndRound()
	if w.timeout() == 0 {
		w.tr.Fire()
	}
	for _, s := range w.take() {
		m.travel(true, s)
	}
	if m.r.IntN(50) == 0 {
		w.check()
	}
}
