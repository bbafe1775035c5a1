package translate

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// TestWindowOfTheNamespace: never more is sent than it takes, with any scale and any
// size of segment.
func TestWindowOfTheNamespace(t *testing.T) {
	for scale := range byte(16) {
		for _, mss := range []int{0, 88, 536, 1460, 65495} {
			t.Run(fmt.Sprintf("scale %d, mss %d", scale, mss), func(t *testing.T) {
				w := newWorldMTU(t, 65520)
				p := w.peer(1)
				p.options = append(mssOption(mss), 1, 3, 3, scale)
				if mss == 0 {
					p.options = p.options[4:]
				}
				p.window = 50
				p.open()
				text := strings.Repeat("0123456789", 3000)
				p.socket.input = []byte(text)
				p.event(unix.EPOLLIN)
				most := max(minMSS, mss)
				if mss == 0 {
					most = defaultMSS
				}
				if got := transfer(p, 50<<min(scale, maxScale), most); got != text {
					t.Errorf("got %d other bytes of %d", len(got), len(text))
				}
			})
		}
	}
}

// transfer receives until nothing comes any more.
func transfer(p *peer, window, most int) string {
	p.w.t.Helper()
	var got strings.Builder
	for {
		all := p.mine()
		if len(all) == 0 {
			return got.String()
		}
		before := got.Len()
		for _, s := range all {
			if s.seq-p.irs != p.got || len(s.payload) > most {
				p.w.t.Fatalf("got %s", p.describe(all))
			}
			got.Write(s.payload)
			p.got += uint32(len(s.payload))
		}
		if n := got.Len() - before; n > window {
			p.w.t.Fatalf("%d bytes for a window of %d", n, window)
		}
		p.ackAll()
	}
}

// TestShutWindow: the namespace is asked again and again, and goes on when it opens its
// window, whether it says so or not.
func TestShutWindow(t *testing.T) {
	w := newWorld(t)
	p := w.peer(1).open()
	p.window = 0
	p.ackAll()
	p.socket.input, p.socket.eof = []byte("waiting"), true
	p.event(unix.EPOLLIN | unix.EPOLLRDHUP)
	p.none()
	w.pass(time.Minute)
	probes := p.mine()
	if len(probes) < 5 || len(probes) > 12 {
		t.Errorf("%d probes in a minute", len(probes))
	}
	for _, s := range probes {
		if s.seq != p.irs+p.got-1 || len(s.payload) > 0 || s.has(header.TCPFlagFin) {
			t.Fatalf("a probe is %s", p.describe([]segment{s}))
		}
	}
	for range 60 { // a program that is stopped for an hour
		w.pass(time.Minute)
		if len(p.mine()) == 0 {
			t.Fatal("no probe within a minute")
		}
		p.ackAll()
	}
	p.window = 1000
	p.ackAll()
	if !p.data("waiting") {
		t.Error("no end")
	}
}

// TestSlowHost: what its socket does not take is kept, the window shrinks to nothing,
// and opens again.
func TestSlowHost(t *testing.T) {
	w := newWorldMTU(t, 65520)
	p := w.peer(1).open()
	p.socket.room = 10
	block := strings.Repeat("x", 60_000)
	sent := 0
	for {
		p.send(block)
		s := p.one(".")
		sent += len(block)
		if s.ack != p.iss+p.sent { // it did not fit
			sent -= len(block) - int(s.ack-(p.iss+p.sent-uint32(len(block))))
			p.sent = s.ack - p.iss
			if s.window != 0 {
				t.Errorf("the window is %d", s.window)
			}
			break
		}
		if sent > 2*maxUnsent {
			t.Fatal("there is no end of what is kept")
		}
	}
	if sent != maxUnsent+10 && sent < maxUnsent {
		t.Errorf("%d bytes are kept", sent)
	}
	p.socket.room = 1 << 30
	p.event(unix.EPOLLOUT)
	if s := p.one("."); s.window == 0 {
		t.Error("the namespace does not learn that the window is open")
	}
	p.fin()
	p.acked()
	if len(p.socket.output) != sent || !p.socket.shut {
		t.Errorf("the host got %d bytes of %d, shut %v", len(p.socket.output), sent, p.socket.shut)
	}
}

// TestLost: what is lost on the way to the namespace comes again: by the third
// acknowledgement of the same, or by time.
func TestLost(t *testing.T) {
	for _, quick := range []bool{true, false} {
		w := newWorld(t)
		p := w.peer(1).open()
		text := strings.Repeat("abcdefghij", 1000)
		n := 0
		w.lose = func(segment) bool { n++; return n == 2 }
		p.socket.input = []byte(text)
		p.event(unix.EPOLLIN)
		var got strings.Builder
		for range 1000 {
			all := p.mine()
			if len(all) == 0 {
				if got.Len() == len(text) {
					break
				}
				if quick {
					t.Fatalf("nothing comes after %d bytes", got.Len())
				}
				w.pass(firstRetry)
				continue
			}
			for _, s := range all {
				if s.seq-p.irs == p.got {
					got.Write(s.payload)
					p.got += uint32(len(s.payload))
				}
				if quick {
					p.ackAll()
				}
			}
			p.ackAll()
		}
		if got.String() != text {
			t.Errorf("quick %v: got %d bytes of %d", quick, got.Len(), len(text))
		}
	}
}

// TestLostEnds: the FIN, the acknowledgement of the other's, the SYN-ACK.
func TestLostEnds(t *testing.T) {
	w := newWorld(t)
	p := w.peer(1).open()
	w.lose = func(s segment) bool { return s.has(header.TCPFlagFin) && w.now < time.Second }
	p.socket.eof = true
	p.event(unix.EPOLLIN | unix.EPOLLRDHUP)
	p.none()
	w.pass(2 * time.Second)
	if !p.data("") {
		t.Error("the end does not come again")
	}
	w.lose = func(segment) bool { return true }
	p.fin()
	p.gone()
	w.lose = nil
	p.raw(header.TCPFlagAck|header.TCPFlagFin, p.sent-1, p.got, nil) // again, of a connection that is forgotten
	if s := p.one("R"); s.seq != p.irs+p.got {
		t.Errorf("got %s", p.describe([]segment{s}))
	}
}

// TestSilence: a namespace that acknowledges nothing, or does not answer probes, is
// given up in the end, and not before.
func TestSilence(t *testing.T) {
	w := newWorld(t)
	p := w.peer(1).open()
	w.pass(keepAliveIdle - time.Second)
	p.none()
	w.pass(2 * time.Second)
	if s := p.one("."); s.seq != p.irs+p.got-1 {
		t.Errorf("the probe is %s", p.describe([]segment{s}))
	}
	p.ackAll() // it lives
	w.pass(10 * time.Minute)
	all := p.mine()
	if len(all) != 10 || !all[9].has(header.TCPFlagRst) {
		t.Errorf("got %s", p.describe(all))
	}
	p.gone()

	p = w.peer(2).open()
	p.socket.input = []byte("x")
	p.event(unix.EPOLLIN)
	w.pass(10 * time.Minute)
	if len(w.tr.conns) != 1 {
		t.Error("given up within ten minutes")
	}
	w.pass(20 * time.Minute)
	p.gone()
}

// TestAcksWithReplies: a connection that takes turns is acknowledged with the replies,
// or a moment later.
func TestAcksWithReplies(t *testing.T) {
	w := newWorld(t)
	p := w.peer(1).open()
	pure := 0
	for range 10 {
		p.send("question")
		pure += len(p.mine())
		p.socket.input = []byte("answer")
		p.event(unix.EPOLLIN)
		p.data("answer")
	}
	if pure > ackTurns+1 {
		t.Errorf("%d acknowledgements of 10 questions", pure)
	}
	p.send("no answer")
	p.none()
	w.pass(2 * ackDelay)
	p.acked()
	p.send("in two pieces")
	p.acked()
}

// TestManyOpenings: attempts that wait in vain make room, the oldest first.
func TestManyOpenings(t *testing.T) {
	w := newWorld(t)
	const most = 250 // a fourth of the places
	for port := range most {
		w.peer(uint16(port + 1)).syn()
		w.now += time.Millisecond
	}
	w.peer(1).syn() // still wanted
	w.peer(most + 1).syn()
	if len(w.tr.conns) != most || w.sockets[0].reset || !w.sockets[1].reset {
		t.Errorf("%d attempts, the first %v, the second %v", len(w.tr.conns), w.sockets[0].reset, w.sockets[1].reset)
	}
	w.pass(time.Minute)
	if len(w.tr.conns) != 0 {
		t.Errorf("%d attempts are left after a minute without another SYN", len(w.tr.conns))
	}
}

// TestFull: beyond the bound, a SYN has no answer.
func TestFull(t *testing.T) {
	w := newWorld(t)
	for port := range 1000 {
		w.peer(uint16(port + 1)).open()
	}
	w.peer(2000).syn()
	if n := len(w.sockets); n != 1000 || len(w.tr.conns) != 1000 {
		t.Errorf("%d sockets, %d connections", n, len(w.tr.conns))
	}
	w.tr.Close()
	if n := len(w.take()); n != 1000 || len(w.tr.conns) != 0 {
		t.Errorf("%d segments at the end, %d connections left", n, len(w.tr.conns))
	}
}

// TestManyReaders: more data than chunks, for all in turn.
func TestManyReaders(t *testing.T) {
	w := newWorldMTU(t, 65520)
	var peers []*peer
	text := strings.Repeat("z", 4*chunkSize)
	for port := range 300 {
		p := w.peer(uint16(port + 1))
		p.window = 0xffff
		p.open()
		p.socket.input = []byte(text)
		peers = append(peers, p)
	}
	for _, p := range peers {
		p.event(unix.EPOLLIN)
	}
	if n := w.tr.chunks.used; n != maxAllChunks {
		t.Errorf("%d chunks are used", n)
	}
	got := map[*peer]int{}
	for range 20 {
		for _, p := range peers {
			for _, s := range p.mine() {
				got[p] += len(s.payload)
				p.got += uint32(len(s.payload))
			}
			p.ackAll()
		}
	}
	for _, p := range peers {
		if got[p] != len(text) {
			t.Fatalf("one got %d bytes of %d", got[p], len(text))
		}
	}
	if w.tr.chunks.used != 0 {
		t.Errorf("%d chunks are left", w.tr.chunks.used)
	}
}
