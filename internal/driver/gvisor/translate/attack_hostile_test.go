package translate

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// hostile sends a segment with numbers near to what is expected, or far.
func (p *peer) hostile(r *rand.Rand) {
	near := func(n uint32) uint32 {
		switch r.IntN(4) {
		case 0:
			return r.Uint32()
		case 1:
			return n
		}
		return n + uint32(r.IntN(400_000)) - uint32(r.IntN(200_000))
	}
	s := segment{flow: p.flow, seq: r.Uint32(), ack: r.Uint32(), window: uint16(r.Uint32() >> r.IntN(16)), flags: header.TCPFlags(r.IntN(64))}
	if r.IntN(2) == 0 {
		s.flags = header.TCPFlagAck
	}
	if c := p.w.tr.conns[p.flow]; c != nil {
		s.seq, s.ack = near(c.rcvNxt), near(c.sndNxt)
	} else if r.IntN(2) == 0 {
		s.flags = header.TCPFlagSyn
	}
	s.options = make([]byte, 4*r.IntN(10))
	for i := range s.options {
		s.options[i] = byte(r.IntN(12))
	}
	s.payload = make([]byte, r.IntN(1+1<<r.IntN(16)))
	p.w.tr.Packet(s.packet())
}

// trouble is what may happen to a socket of the host.
func trouble(r *rand.Rand, s *fakeSocket) {
	if s.closed {
		return
	}
	events := uint32(1) << r.IntN(5)
	switch r.IntN(8) {
	case 0:
		s.input = append(bytes.Clone(s.input), make([]byte, r.IntN(300_000))...)
		events |= unix.EPOLLIN
	case 1:
		s.room = r.IntN(100_000)
		events |= unix.EPOLLOUT
	case 2:
		s.room = 0
	case 3:
		if r.IntN(20) == 0 {
			s.eof = true
			events |= unix.EPOLLIN | unix.EPOLLRDHUP
		}
	case 4:
		if r.IntN(50) == 0 {
			s.err, s.recvErr, s.sendErr = unix.ECONNRESET, unix.ECONNRESET, unix.ECONNRESET
			events |= unix.EPOLLERR | unix.EPOLLHUP
		}
	case 5:
		s.urgent = r.IntN(1 + len(s.input))
	}
	s.watcher.Ready(events)
}

// TestHostile: a peer that sends anything harms its own connections only, and leaves
// nothing behind. Another connection works on, and none of its bytes is lost.
func TestHostile(t *testing.T) {
	seeds := uint64(60)
	for seed := range seeds {
		r := rand.New(rand.NewPCG(seed, 2))
		w := newWorldMTU(t, []int{1500, 65520}[r.IntN(2)])
		good := w.peer(1000).open()
		var sent, got int
		for i := range 2000 {
			w.attack(r, good.socket)
			if i%100 == 0 {
				w.round()
				good.mine()
				good.ackAll()
				good.send("question")
				good.socket.input = []byte("answer")
				good.event(unix.EPOLLIN)
				w.pass(ackDelay)
				sent, got = sent+1, got+good.answer()
			}
			w.out = w.out[:0]
		}
		if got != sent || len(good.socket.output) != 8*sent || good.socket.closed {
			t.Fatalf("seed %d: %d of %d answers, %d bytes of questions", seed, got, sent, len(good.socket.output))
		}
		w.check()
		w.empty()
	}
}

// attack does one thing to any connection but one.
func (w *world) attack(r *rand.Rand, spared *fakeSocket) {
	bad := w.peer(uint16(1 + r.IntN(20)))
	if before := len(w.sockets); r.IntN(3) > 0 {
		bad.hostile(r)
		if len(w.sockets) > before && r.IntN(3) > 0 {
			w.sockets[before].watcher.Ready(unix.EPOLLOUT)
		}
	} else if s := w.sockets[r.IntN(len(w.sockets))]; s != spared {
		trouble(r, s)
	}
	if r.IntN(4) == 0 {
		w.tr.EndRound()
	}
	if r.IntN(20) == 0 {
		w.now += time.Duration(r.Int64N(1 << (10 + r.IntN(24))))
		w.tr.Fire()
		w.check()
	}
}

// answer takes what has come, and returns 1 if that was an answer.
func (p *peer) answer() int {
	text := ""
	for _, s := range p.mine() {
		text += string(s.payload)
		p.got += uint32(len(s.payload))
	}
	p.ackAll()
	p.mine()
	return b2i(text == "answer")
}

// TestHoarders: connections that acknowledge nothing have all chunks. Another waits for
// a while at most.
func TestHoarders(t *testing.T) {
	w := newWorldMTU(t, 65520)
	for port := range maxAllChunks/maxChunks + 10 {
		p := w.peer(uint16(port + 1))
		p.window = 0xffff
		p.open()
		p.socket.input = make([]byte, 2*maxChunks*chunkSize)
		p.event(unix.EPOLLIN)
	}
	if w.tr.chunks.used != maxAllChunks {
		t.Fatalf("%d chunks are used", w.tr.chunks.used)
	}
	good := w.peer(1000).open()
	good.socket.input = []byte("answer")
	good.event(unix.EPOLLIN)
	for good.answer() == 0 {
		if w.pass(100 * time.Millisecond); w.now > 10*time.Second {
			t.Fatal("it waits in vain")
		}
	}
	w.check()
	w.empty()
}
