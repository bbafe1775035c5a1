package translate

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// both runs a script over IPv4 and over IPv6.
func both(t *testing.T, script func(t *testing.T, w *world)) {
	for name, v6 := range map[string]bool{"IPv4": false, "IPv6": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.v6 = v6
			script(t, w)
		})
	}
}

// TestConversation: a connection from its first segment to its last, ended by the
// namespace.
func TestConversation(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		p := w.peer(1).open()
		p.send("hello")
		p.acked()
		if got := string(p.socket.output); got != "hello" {
			t.Errorf("the host got %q", got)
		}
		p.socket.input = []byte("answer")
		p.event(unix.EPOLLIN)
		p.data("answer")
		p.fin()
		p.acked()
		if !p.socket.shut || p.socket.closed {
			t.Error("the host was not told, or too much")
		}
		p.socket.input, p.socket.eof = []byte("last"), true
		p.event(unix.EPOLLIN | unix.EPOLLRDHUP)
		if !p.data("last") {
			t.Error("no end")
		}
		p.gone()
		if p.socket.reset {
			t.Error("the host's side was reset")
		}
	})
}

// TestHostEndsFirst: the end comes with the last data.
func TestHostEndsFirst(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		p := w.peer(1).open()
		p.socket.input, p.socket.eof = []byte("all"), true
		p.event(unix.EPOLLIN | unix.EPOLLRDHUP)
		if !p.data("all") {
			t.Error("no end")
		}
		p.send("more") // half-closed: the other direction goes on, for hours
		p.acked()
		for range 4 * 60 {
			w.pass(keepAliveIdle)
			if len(p.mine()) > 0 { // a probe
				p.ackAll()
			}
		}
		p.send("and more")
		p.acked()
		if got := string(p.socket.output); got != "moreand more" {
			t.Errorf("the host got %q", got)
		}
		p.fin()
		p.acked()
		p.gone()
	})
}

func TestSimultaneousEnds(t *testing.T) {
	w := newWorld(t)
	p := w.peer(1).open()
	p.socket.eof = true
	p.event(unix.EPOLLIN | unix.EPOLLRDHUP)
	p.fin() // does not acknowledge the other
	end := p.mine()
	if len(end) != 2 || !end[0].has(header.TCPFlagFin) || end[1].ack != p.iss+p.sent {
		t.Fatalf("got %s", p.describe(end))
	}
	p.got++
	p.ackAll()
	p.gone()
}

// TestRefusals: what the host answers is what the namespace learns.
func TestRefusals(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		p := w.peer(1)
		p.syn()
		p.socket = w.sockets[0]
		p.socket.err = unix.ECONNREFUSED
		p.event(unix.EPOLLOUT | unix.EPOLLERR | unix.EPOLLHUP)
		if s := p.one("R."); s.ack != p.iss+1 {
			t.Errorf("the reset acknowledges %d", s.ack-p.iss)
		}
		p.gone()
		p.syn()
		p.socket = w.sockets[1]
		p.socket.err = unix.EHOSTUNREACH
		p.event(unix.EPOLLERR)
		p.none()
		p.gone()
		if len(w.rejects) != 1 || !strings.HasPrefix(w.rejects[0], "no route to host") {
			t.Errorf("rejected: %q", w.rejects)
		}
		w.dialErr = unix.ENETUNREACH
		p.syn()
		if len(w.rejects) != 2 || len(w.tr.conns) != 0 {
			t.Errorf("rejected: %q", w.rejects)
		}
		w.dialErr = unix.ECONNREFUSED
		p.syn()
		p.one("R.")
	})
}

func TestSynAgain(t *testing.T) {
	w := newWorld(t)
	p := w.peer(1)
	p.syn()
	p.syn()
	p.none()
	if len(w.sockets) != 1 {
		t.Fatalf("%d sockets", len(w.sockets))
	}
	p.iss += 100 // another attempt from the same port
	p.syn()
	if len(w.sockets) != 2 || !w.sockets[0].reset {
		t.Fatalf("%d sockets", len(w.sockets))
	}
	p.socket = w.sockets[1]
	p.event(unix.EPOLLOUT)
	p.irs = p.one("S.").seq
	p.syn()
	if s := p.one("S."); s.seq != p.irs {
		t.Error("another number")
	}
	p.sent, p.got = 1, 1
	p.ackAll()
	p.none()
	// The namespace has forgotten the connection: it answers with a reset.
	p.iss -= 50
	p.syn()
	s := p.one(".")
	p.iss = s.ack - 1
	p.raw(header.TCPFlagRst, 1, 0, nil)
	p.gone()
	if !p.socket.reset {
		t.Error("the host's side was not reset")
	}
}

// TestHandshakeIsRepeated: the SYN-ACK comes again, and the attempt ends.
func TestHandshakeIsRepeated(t *testing.T) {
	w := newWorld(t)
	p := w.peer(1)
	p.syn()
	p.socket = w.sockets[0]
	p.event(unix.EPOLLOUT)
	w.pass(2 * time.Second)
	if n := len(p.mine()); n < 3 || n > 6 {
		t.Errorf("%d SYN-ACKs in two seconds", n)
	}
	w.pass(2 * time.Second)
	all := p.mine()
	if len(all) == 0 || !all[len(all)-1].has(header.TCPFlagRst) {
		t.Errorf("got %s", p.describe(all))
	}
	p.gone()
}

// TestHandshakeSurvivesAPause: after a pause of the launcher, the timers come before the
// frames that have waited.
func TestHandshakeSurvivesAPause(t *testing.T) {
	w := newWorld(t)
	p := w.peer(1)
	p.syn()
	p.socket = w.sockets[0]
	p.event(unix.EPOLLOUT)
	p.mine()
	w.now += time.Hour
	w.tr.Fire()
	w.round()
	if all := p.mine(); len(all) != 1 || flagNames(all[0].flags) != "S." {
		t.Errorf("got %s", p.describe(all))
	}
	if p.socket.reset {
		t.Error("the host's side was reset")
	}
}

// TestWrongAckOfHandshake is answered with a reset.
func TestWrongAckOfHandshake(t *testing.T) {
	w := newWorld(t)
	p := w.peer(1).accepted()
	p.raw(header.TCPFlagAck, 1, 2, nil)
	p.one("R.")
	p.gone()
}

// TestResets: only one where the next byte would be ends a connection.
func TestResets(t *testing.T) {
	for offset, ends := range map[int32]bool{0: true, 1: false, 1000: false, -1: false, 1 << 30: false} {
		w := newWorld(t)
		p := w.peer(1).open()
		p.raw(header.TCPFlagRst, p.sent+uint32(offset), 0, nil)
		w.round()
		switch {
		case ends:
			p.none()
			p.gone()
			if !p.socket.reset {
				t.Error("the host's side was not reset")
			}
		case offset > 0 && offset < 10_000:
			p.acked() // a challenge
		default:
			p.none()
		}
	}
	w := newWorld(t)
	p := w.peer(1)
	p.syn()
	p.socket = w.sockets[0]
	p.raw(header.TCPFlagRst, 1, 0, nil)
	p.none()
	p.gone()
}

// TestHostResets: in any phase of a connection.
func TestHostResets(t *testing.T) {
	for name, before := range map[string]func(p *peer){
		"open":               func(*peer) {},
		"after the host end": func(p *peer) { p.socket.eof = true; p.event(unix.EPOLLIN | unix.EPOLLRDHUP); p.data("") },
		"after the other":    func(p *peer) { p.fin(); p.acked() },
		"no window":          func(p *peer) { p.window = 0; p.ackAll() },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p := w.peer(1).open()
			before(p)
			p.mine()
			p.socket.eof, p.socket.recvErr = false, unix.ECONNRESET
			p.event(unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR)
			if name == "no window" {
				p.none()
				p.window = 1000
				p.ackAll()
			}
			p.one("R.")
			p.gone()
		})
	}
	w := newWorld(t)
	p := w.peer(1).open()
	p.socket.sendErr = unix.EPIPE
	p.send("x")
	p.one("R.")
	p.gone()
}

// TestOrder: what is old is acknowledged, what comes too early is not kept, and what
// overlaps is taken once.
func TestOrder(t *testing.T) {
	w := newWorld(t)
	p := w.peer(1).open()
	p.send("abcdef")
	p.acked()
	p.raw(header.TCPFlagAck, p.sent-6, p.got, []byte("abcdef"))
	p.acked()
	p.raw(header.TCPFlagAck, p.sent+1, p.got, []byte("xyz"))
	p.acked()
	p.raw(header.TCPFlagAck, p.sent-3, p.got, []byte("defghi"))
	w.round()
	p.sent += 3
	p.acked()
	p.raw(header.TCPFlagAck|header.TCPFlagFin, p.sent-2, p.got, []byte("hi"))
	w.round()
	p.sent++
	p.acked()
	p.raw(header.TCPFlagAck|header.TCPFlagFin, p.sent-1, p.got, nil) // again
	w.round()
	p.acked()
	p.raw(header.TCPFlagAck, p.sent, p.got, []byte("beyond the end"))
	w.round()
	p.acked()
	if got := string(p.socket.output); got != "abcdefghi" {
		t.Errorf("the host got %q", got)
	}
}

// TestForeignAcks: of what was never sent, and old ones, which may carry data.
func TestForeignAcks(t *testing.T) {
	w := newWorld(t)
	p := w.peer(1).open()
	p.raw(header.TCPFlagAck, p.sent, p.got+5, []byte("dropped"))
	p.acked()
	p.socket.input = []byte("data")
	p.event(unix.EPOLLIN)
	p.data("data")
	p.raw(header.TCPFlagAck, p.sent, p.got-2, []byte("taken"))
	w.round()
	p.sent += 5
	p.acked()
	p.raw(0, p.sent, p.got, []byte("no ACK"))
	w.round()
	p.none()
	if got := string(p.socket.output); got != "taken" {
		t.Errorf("the host got %q", got)
	}
}
