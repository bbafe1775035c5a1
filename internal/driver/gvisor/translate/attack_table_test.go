package translate

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// states brings a connection into each state of the table, on both sides.
var states = map[string]func(w *world) *peer{
	"opening": func(w *world) *peer {
		p := w.peer(1)
		p.syn()
		p.socket, p.sent, p.got = w.sockets[0], 1, 1
		return p
	},
	"accepted": func(w *world) *peer {
		p := w.peer(1).accepted()
		return p
	},
	"open": func(w *world) *peer { return w.peer(1).open() },
	"unsent": func(w *world) *peer {
		p := w.peer(1).open()
		p.socket.room = 0
		p.send("kept")
		return p
	},
	"unacknowledged": func(w *world) *peer {
		p := w.peer(1).open()
		p.socket.input = []byte("data")
		p.event(unix.EPOLLIN)
		return p
	},
	"shut window": func(w *world) *peer {
		p := w.peer(1).open()
		p.window = 0
		p.ackAll()
		p.socket.input = []byte("data")
		p.event(unix.EPOLLIN)
		return p
	},
	"namespace ended": func(w *world) *peer {
		p := w.peer(1).open()
		p.fin()
		return p
	},
	"namespace ended, unsent": func(w *world) *peer {
		p := w.peer(1).open()
		p.socket.room = 0
		p.send("kept")
		p.fin()
		return p
	},
	"host ended": func(w *world) *peer {
		p := w.peer(1).open()
		p.socket.eof = true
		p.event(unix.EPOLLIN | unix.EPOLLRDHUP)
		return p
	},
	"host ended, acknowledged": func(w *world) *peer {
		p := w.peer(1).open()
		p.socket.eof = true
		p.event(unix.EPOLLIN | unix.EPOLLRDHUP)
		p.data("")
		return p
	},
	"both ended": func(w *world) *peer {
		p := w.peer(1).open()
		p.socket.eof = true
		p.event(unix.EPOLLIN | unix.EPOLLRDHUP)
		p.fin()
		return p
	},
	"both ended, unsent": func(w *world) *peer {
		p := w.peer(1).open()
		p.socket.eof, p.socket.room = true, 0
		p.event(unix.EPOLLIN | unix.EPOLLRDHUP)
		p.send("kept")
		p.fin()
		p.mine()
		p.got++
		p.ackAll()
		return p
	},
}

// events are all that can happen in a state.
var events = map[string]func(p *peer){
	"nothing":      func(*peer) {},
	"ACK":          func(p *peer) { p.ackAll() },
	"all ACKed":    func(p *peer) { p.raw(header.TCPFlagAck, p.sent, p.w.sndNxt(p), nil); p.w.round() },
	"SYN":          func(p *peer) { p.syn() },
	"other SYN":    func(p *peer) { p.raw(header.TCPFlagSyn, 1<<20, 0, nil) },
	"SYN-ACK":      func(p *peer) { p.raw(header.TCPFlagSyn|header.TCPFlagAck, p.sent, p.got, nil) },
	"no flags":     func(p *peer) { p.raw(0, p.sent, p.got, []byte("x")) },
	"all flags":    func(p *peer) { p.raw(0x3f, p.sent, p.got, []byte("x")) },
	"data":         func(p *peer) { p.send("text") },
	"gap":          func(p *peer) { p.raw(header.TCPFlagAck, p.sent+9, p.got, []byte("x")) },
	"old data":     func(p *peer) { p.raw(header.TCPFlagAck, p.sent-1, p.got, []byte("x")) },
	"FIN":          func(p *peer) { p.fin() },
	"data and FIN": func(p *peer) { p.raw(header.TCPFlagAck|header.TCPFlagFin, p.sent, p.got, []byte("x")) },
	"FIN in a gap": func(p *peer) { p.raw(header.TCPFlagAck|header.TCPFlagFin, p.sent+9, p.got, nil) },
	"future ACK":   func(p *peer) { p.raw(header.TCPFlagAck, p.sent, p.got+1<<20, nil) },
	"old ACK":      func(p *peer) { p.raw(header.TCPFlagAck, p.sent, p.got-1<<20, []byte("x")) },
	"RST":          func(p *peer) { p.raw(header.TCPFlagRst, p.sent, 0, nil) },
	"RST before":   func(p *peer) { p.raw(header.TCPFlagRst, p.sent-1, 0, nil) },
	"RST in it":    func(p *peer) { p.raw(header.TCPFlagRst, p.sent+99, 0, nil) },
	"RST far":      func(p *peer) { p.raw(header.TCPFlagRst, p.sent+1<<30, 0, nil) },
	"writable":     func(p *peer) { p.socket.room = 1 << 30; p.ready(unix.EPOLLOUT) },
	"host data":    func(p *peer) { p.socket.input = append(p.socket.input, "more"...); p.ready(unix.EPOLLIN) },
	"host end":     func(p *peer) { p.socket.eof = true; p.ready(unix.EPOLLIN | unix.EPOLLRDHUP) },
	"host reset": func(p *peer) {
		p.socket.err, p.socket.recvErr, p.socket.sendErr = unix.ECONNRESET, unix.ECONNRESET, unix.ECONNRESET
		p.ready(unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR)
	},
	"a second":   func(p *peer) { p.w.pass(time.Second) },
	"an hour":    func(p *peer) { p.w.pass(time.Hour) },
	"new window": func(p *peer) { p.window = 60_000; p.ackAll() },
}

// ready gives an event of a socket if it is open.
func (p *peer) ready(events uint32) {
	if !p.socket.closed {
		p.event(events)
	}
}

// sndNxt is the offset of the next byte to the namespace.
func (w *world) sndNxt(p *peer) uint32 {
	if c := w.tr.conns[p.flow]; c != nil && c.state != opening {
		return c.sndNxt - p.irs
	}
	return p.got
}

// TestTable: each two events, in each state, leave the counters right, never end the
// other connection, and leave nothing behind.
func TestTable(t *testing.T) {
	for state, begin := range states {
		for first, one := range events {
			t.Run(state+"/"+first, func(t *testing.T) {
				for _, two := range events {
					w := newWorld(t)
					p := begin(w)
					w.check()
					one(p)
					w.check()
					two(p)
					w.check()
					w.others()
					w.empty()
				}
			})
		}
	}
}

// others fails unless a connection that begins now works.
func (w *world) others() {
	w.t.Helper()
	w.take()
	w.dialErr = nil
	q := w.peer(99).open()
	q.send("question")
	q.acked()
	q.socket.input = []byte("answer")
	q.event(unix.EPOLLIN)
	q.data("answer")
	if got := string(q.socket.output); got != "question" {
		w.t.Fatalf("another connection carried %q", got)
	}
}

// TestResetInEveryState: only the number that is expected ends a connection.
func TestResetInEveryState(t *testing.T) {
	for state, begin := range states {
		for _, offset := range []uint32{0, 1, 100, 1 << 20, 1 << 31, 0xffff_ffff} {
			w := newWorld(t)
			p := begin(w)
			p.mine()
			p.raw(header.TCPFlagRst|header.TCPFlagAck, p.sent+offset, p.got, nil)
			gone := w.tr.conns[p.flow] == nil
			// What the namespace has sent before it ended is not for it to take back.
			keeps := strings.HasSuffix(state, "ended, unsent")
			if want := offset == 0 && !keeps; gone != want {
				t.Errorf("%s: a reset at %d has ended it: %v", state, int32(offset), gone)
			}
			for _, s := range p.mine() {
				if flagNames(s.flags) != "." {
					t.Errorf("%s: %s", state, p.describe([]segment{s}))
				}
			}
			w.check()
			w.empty()
		}
	}
}

// TestFinInEveryState: it counts where it is expected, and where the connection is open.
func TestFinInEveryState(t *testing.T) {
	for state, begin := range states {
		w := newWorld(t)
		p := begin(w)
		p.mine()
		before := p.sent
		p.raw(header.TCPFlagAck|header.TCPFlagFin, p.sent, w.sndNxt(p), nil)
		w.round()
		c, ended := w.tr.conns[p.flow], strings.Contains(state, "namespace ended") || strings.Contains(state, "both")
		switch want := state != "opening"; {
		case c != nil && c.finGot != (want || ended):
			t.Errorf("%s: the end of the namespace is known: %v", state, c.finGot)
		case c != nil && !ended && want && c.rcvNxt != p.iss+before+1:
			t.Errorf("%s: the FIN has the number %d", state, c.rcvNxt-p.iss)
		case c == nil && !strings.HasPrefix(state, "host ended") && state != "both ended":
			t.Errorf("%s: the connection is gone", state)
		}
		w.check()
		w.empty()
	}
}

// TestTurnOver: streams whose numbers turn over, with each distance to the end.
func TestTurnOver(t *testing.T) {
	for distance := range uint32(40) {
		w := newWorld(t)
		p := w.peer(1)
		p.iss = -distance
		p.open()
		c := w.tr.conns[p.flow] // its number is random: move it
		move := -distance - c.sndNxt
		c.sndUna, c.sndNxt, p.irs = c.sndUna+move, c.sndNxt+move, p.irs+move
		for i := range 10 {
			text := fmt.Sprintf("text %d", i)
			p.send(text)
			p.acked()
			p.socket.input = []byte(text)
			p.event(unix.EPOLLIN)
			p.data(text)
			w.tr.conns[p.flow].turns = 0
		}
		p.socket.eof = true
		p.event(unix.EPOLLIN | unix.EPOLLRDHUP)
		p.data("")
		p.fin()
		p.acked()
		if p.gone(); len(p.socket.output) != 60 || p.socket.reset {
			t.Errorf("%d: the host got %d bytes", distance, len(p.socket.output))
		}
	}
}
