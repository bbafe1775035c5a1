package translate

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// TestKeepAliveOfTheNamespace: Linux asks with an old number and no data (RFC 9293,
// 3.8.4), or with one old byte, and gives the connection up if nobody answers.
func TestKeepAliveOfTheNamespace(t *testing.T) {
	w := newWorld(t)
	p := w.peer(1).open()
	p.send("data")
	p.acked()
	for _, garbage := range []string{"", "x"} {
		p.raw(header.TCPFlagAck, p.sent-1, p.got, []byte(garbage))
		w.round()
		p.acked()
	}
	p.fin()
	p.acked()
	p.raw(header.TCPFlagAck, p.sent-1, p.got, nil)
	w.round()
	p.acked()
	w.check()
	w.empty()
}

// TestProbeOfAShutWindow: the namespace asks for the window with an old number, as
// Linux does, or with the next byte (RFC 9293, 3.8.6.1). It gives the connection up if
// nobody answers.
func TestProbeOfAShutWindow(t *testing.T) {
	w := newWorldMTU(t, 65520)
	p := w.peer(1).open()
	p.socket.room = 0
	for range 16 {
		p.send(strings.Repeat("x", 65_480))
	}
	p.send(strings.Repeat("x", maxUnsent-16*65_480))
	all := p.mine()
	if last := all[len(all)-1]; last.window != 0 || last.ack != p.iss+p.sent {
		t.Fatalf("got %s", p.describe(all))
	}
	for _, turns := range []int{0, ackTurns} {
		w.tr.conns[p.flow].turns = turns
		for seq, text := range map[uint32]string{p.sent - 1: "", p.sent: "y"} {
			p.raw(header.TCPFlagAck, seq, p.got, []byte(text))
			w.round()
			if s := p.one("."); s.window != 0 || s.ack != p.iss+p.sent {
				t.Errorf("got %s", p.describe([]segment{s}))
			}
		}
	}
	// A segment beyond the window has an acknowledgement that counts.
	p.socket.input = []byte("answer")
	p.event(unix.EPOLLIN)
	p.got += uint32(len(p.one("P.").payload))
	p.raw(header.TCPFlagAck, p.sent, p.got, []byte("y"))
	w.round()
	p.one(".")
	if n := w.tr.conns[p.flow].outstanding(); n != 0 {
		t.Errorf("%d bytes are outstanding", n)
	}
	w.check()
	w.empty()
}

// TestWindowUpdate: a namespace that waits with a large segment for more window, as
// Linux does, learns soon that there is much more.
func TestWindowUpdate(t *testing.T) {
	for left := 0; left < maxUnsent; left += 10_000 {
		w := newWorldMTU(t, 65520)
		p := w.peer(1).open()
		p.socket.room = 0
		for rest := maxUnsent - left; rest > 0; {
			n := min(rest, 65_480)
			p.send(strings.Repeat("x", n))
			rest -= n
		}
		all := p.mine()
		window := int(all[len(all)-1].window) << windowScale
		p.socket.room = 1 << 30
		p.event(unix.EPOLLOUT)
		if all := p.mine(); len(all) == 0 && window < 2*65_480 {
			t.Errorf("a window of %d bytes is open again, and the namespace does not know", window)
		}
	}
}

// TestResetAfterData: a reset by the host is not taken for the end of file when data
// came before.
func TestResetAfterData(t *testing.T) {
	w := newWorld(t)
	p := w.peer(1).open()
	p.socket.input, p.socket.recvErr = []byte("half"), unix.ECONNRESET
	p.event(unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR)
	all := p.mine()
	if len(all) != 2 || string(all[0].payload) != "half" || all[0].has(header.TCPFlagFin) || !all[1].has(header.TCPFlagRst) {
		t.Errorf("got %s", p.describe(all))
	}
	p.gone()
}

// TestUrgentFromTheHost: the kernel stops reading in front of urgent data, without
// having no more.
func TestUrgentFromTheHost(t *testing.T) {
	for _, events := range []uint32{unix.EPOLLIN | unix.EPOLLPRI, unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLRDHUP} {
		w := newWorld(t)
		p := w.peer(1).open()
		p.socket.input, p.socket.urgent = []byte("before!after"), 6
		p.socket.eof = events&unix.EPOLLRDHUP != 0
		p.event(events)
		if end := p.data("before!after"); end != p.socket.eof {
			t.Error("a wrong end")
		}
	}
}

// TestNumbersFarAway: a segment outside of the window is answered, opens nothing, and
// does not decide which window is the newest (RFC 9293, 3.10.7.4).
func TestNumbersFarAway(t *testing.T) {
	for _, offset := range []uint32{1 << 21, 1 << 30, 1<<31 - 1, 1 << 31, 3 << 30} {
		w := newWorld(t)
		p := w.peer(1).accepted()
		p.sent, p.got = 1, 1
		p.raw(header.TCPFlagAck, p.sent+offset, p.got, nil)
		p.acked()
		if w.tr.conns[p.flow].state != accepted {
			t.Fatal("a wrong number has opened the connection")
		}
		p.ackAll()
		p.none()
		p.raw(header.TCPFlagAck, p.sent+offset, p.got, nil)
		p.acked()
		p.window = 0
		p.ackAll()
		p.socket.input = []byte("x")
		p.event(unix.EPOLLIN)
		p.none()
		w.check()
		w.empty()
	}
}

// TestNewAttemptIsRefused: the second attempt from a port has an answer, too, and only
// a SYN is an attempt.
func TestNewAttemptIsRefused(t *testing.T) {
	w := newWorld(t)
	p := w.peer(1)
	p.syn()
	p.raw(header.TCPFlagSyn|header.TCPFlagAck, 50, 0, nil)
	p.raw(header.TCPFlagSyn|header.TCPFlagFin, 50, 0, nil)
	if len(w.sockets) != 1 || w.sockets[0].closed {
		t.Fatal("what is no attempt has ended one")
	}
	w.dialErr = unix.ECONNREFUSED
	p.iss += 100
	p.syn()
	if s := p.one("R."); s.ack != p.iss+1 {
		t.Errorf("the reset acknowledges %d", s.ack-p.iss)
	}
	w.check()
}

// TestSlowUpload: the namespace has sent everything and forgets the connection before
// the host has taken all. Nothing of it is lost.
func TestSlowUpload(t *testing.T) {
	for _, hostEnded := range []bool{false, true} {
		w := newWorldMTU(t, 65520)
		p := w.peer(1).open()
		if hostEnded {
			p.socket.eof = true
			p.event(unix.EPOLLIN | unix.EPOLLRDHUP)
			p.data("")
		}
		p.socket.room = 10
		text := strings.Repeat("x", 60_000)
		p.send(text)
		p.fin()
		p.mine()
		forgotten := func(d time.Duration) {
			for end := w.now + d; w.now < end; w.pass(time.Second) {
				for _, s := range p.mine() {
					p.raw(header.TCPFlagRst, s.ack-p.iss, 0, nil)
				}
			}
		}
		forgotten(time.Hour)
		p.socket.room = 1 << 30
		p.event(unix.EPOLLOUT)
		forgotten(time.Hour)
		if p.gone(); len(p.socket.output) != len(text) || p.socket.reset {
			t.Errorf("the host has ended: %v: it got %d bytes of %d, reset %v", hostEnded, len(p.socket.output), len(text), p.socket.reset)
		}
	}
}

// TestResetAtOnce: a host that accepts the connection and resets it before anybody
// looks.
func TestResetAtOnce(t *testing.T) {
	for _, errno := range []unix.Errno{unix.ECONNRESET, unix.EPIPE} {
		w := newWorld(t)
		p := w.peer(1)
		p.syn()
		p.socket = w.sockets[0]
		p.socket.err = errno
		p.event(unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLERR | unix.EPOLLHUP)
		p.one("R.")
		p.gone()
	}
}

// TestWindowOfARepeatedSegment: an acknowledgement that comes with an old number moves
// the window, which ends where it ended before.
func TestWindowOfARepeatedSegment(t *testing.T) {
	w := newWorld(t)
	p := w.peer(1).open()
	p.window = 2 // times 128
	p.send("first")
	p.send("second")
	p.mine()
	p.socket.input = make([]byte, 1000)
	p.event(unix.EPOLLIN)
	if n := len(p.one("P.").payload); n != 256 {
		t.Fatalf("%d bytes for a window of 256", n)
	}
	p.window = 1
	p.raw(header.TCPFlagAck, p.sent-11, p.got+256, []byte("first"))
	w.round()
	for _, s := range p.mine() {
		if len(s.payload) > 128 {
			t.Errorf("more than the window takes: %s", p.describe([]segment{s}))
		}
	}
}

// TestShrinkingWindow: a namespace that takes back what it has offered gets no more
// than it takes now, and everything in the end.
func TestShrinkingWindow(t *testing.T) {
	w := newWorld(t)
	p := w.peer(1).open()
	text := strings.Repeat("0123456789", 40_000)
	p.socket.input = []byte(text)
	p.event(unix.EPOLLIN)
	var got strings.Builder
	for turn := 0; got.Len() < len(text) && turn < 10_000; turn++ {
		edge := p.got + uint32(p.window)<<7
		for _, s := range p.mine() {
			if end := s.seq - p.irs + uint32(len(s.payload)); s.seq-p.irs == p.got && end <= edge {
				got.WriteString(string(s.payload))
				p.got = end
			}
		}
		p.window = uint16(turn * 7 % 50)
		p.ackAll()
		w.pass(firstRetry)
	}
	if got.String() != text {
		t.Errorf("got %d bytes of %d", got.Len(), len(text))
	}
	w.check()
	w.empty()
}

// TestHalfClosedForHours: the namespace has ended, and lives; the host goes on, slowly.
func TestHalfClosedForHours(t *testing.T) {
	w := newWorld(t)
	p := w.peer(1).open()
	p.fin()
	p.acked()
	for range 10 {
		for range 3600 / 15 {
			w.pass(keepAliveIdle)
			if len(p.mine()) > 0 { // a probe
				p.ackAll()
			}
		}
		p.mine()
		p.socket.input = []byte("still here")
		p.event(unix.EPOLLIN)
		p.data("still here")
	}
	p.socket.eof = true
	p.event(unix.EPOLLIN | unix.EPOLLRDHUP)
	if !p.data("") {
		t.Error("no end")
	}
	p.gone()
}
