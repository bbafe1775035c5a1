package translate

import (
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// caller is a call of a client, whom the peer answers.
type caller struct {
	*peer
	opened  bool
	ended   bool
	why     error
	in, out atomic.Uint64
	end     func()
}

// call calls the namespace: the peer has got the SYN.
func (w *world) call(port uint16) *caller {
	w.t.Helper()
	c := &caller{peer: w.peer(port)}
	// The server's port is the peer's own.
	c.socket = &fakeSocket{room: 1 << 30}
	end, err := w.tr.Call(Call{
		Socket: c.socket, Source: c.flow.target(), Target: c.flow.source(),
		Opened: func() { c.opened = true },
		Ended:  func(err error) { c.ended, c.why = true, err },
		In:     &c.in, Out: &c.out,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	c.end = end
	s := c.one("S")
	c.irs = s.seq
	c.got = 1
	return c
}

// answer accepts the call.
func (c *caller) answer() *caller {
	c.w.t.Helper()
	c.raw(header.TCPFlagSyn|header.TCPFlagAck, 0, c.got, nil)
	c.w.round()
	c.sent = 1
	c.acked()
	if !c.opened {
		c.w.t.Fatal("not opened")
	}
	return c
}

func TestCall(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		c := w.call(80).answer()
		c.socket.input = []byte("question")
		c.event(unix.EPOLLIN | unix.EPOLLOUT)
		c.data("question")
		c.send("answer")
		c.mine()
		c.fin()
		c.socket.eof = true
		c.event(unix.EPOLLIN | unix.EPOLLRDHUP)
		c.mine()
		c.got++
		c.ackAll()
		c.gone()
		if !c.ended || c.why != nil || c.in.Load() != 8 || c.out.Load() != 6 || string(c.socket.output) != "answer" {
			t.Errorf("ended %v with %v, %d in, %d out, %q", c.ended, c.why, c.in.Load(), c.out.Load(), c.socket.output)
		}
	})
}

// TestCallRefused: the socket is still the caller's.
func TestCallRefused(t *testing.T) {
	for name, refuse := range map[string]func(c *caller){
		"RST":  func(c *caller) { c.raw(header.TCPFlagRst|header.TCPFlagAck, 0, c.got, nil) },
		"ICMP": func(c *caller) { c.w.tr.Unreachable(c.flow.target(), c.flow.source(), unix.EHOSTUNREACH) },
		"time": func(c *caller) { c.w.pass(time.Minute) },
	} {
		w := newWorld(t)
		c := w.call(80)
		c.raw(header.TCPFlagRst, 0, 0, nil) // forged: it acknowledges nothing
		c.raw(header.TCPFlagRst|header.TCPFlagAck, 0, c.got+1, nil)
		if c.ended {
			t.Errorf("%s: a forged reset has ended the call", name)
		}
		refuse(c)
		if !c.ended || c.why == nil || c.opened || c.socket.closed || len(w.tr.conns) != 0 {
			t.Errorf("%s: ended %v with %v, opened %v, closed %v", name, c.ended, c.why, c.opened, c.socket.closed)
		}
	}
}

// TestCallAgain: the SYN is repeated, and the server's memory of an older connection
// does not stand in the way.
func TestCallAgain(t *testing.T) {
	w := newWorld(t)
	c := w.call(80)
	w.pass(time.Second)
	if n := len(c.mine()); n < 2 || n > 4 {
		t.Errorf("%d SYNs in a second", n)
	}
	c.raw(header.TCPFlagAck, 500, 500, nil) // as of an open connection
	all := c.mine()
	if len(all) != 2 || flagNames(all[0].flags) != "R" || all[0].seq != c.irs+500 || flagNames(all[1].flags) != "S" {
		t.Fatalf("got %s", c.describe(all))
	}
	c.answer()
	first := c.irs
	c.end()
	c.one("R.")
	if !c.socket.reset || c.why != ErrClosed {
		t.Errorf("reset %v, ended with %v", c.socket.reset, c.why)
	}
	w.now += time.Second
	if again := w.call(80); int32(again.irs-first) <= 0 {
		t.Error("the next number of the same flow is not greater")
	}
}

// TestCallEnds: a namespace that does not answer has 30 seconds.
func TestCallEnds(t *testing.T) {
	w := newWorld(t)
	c := w.call(80)
	w.pass(callTime - time.Millisecond)
	if c.ended {
		t.Fatalf("ended too early: %v", c.why)
	}
	w.pass(time.Millisecond)
	if c.opened || !c.ended || c.why != unix.ETIMEDOUT {
		t.Errorf("opened %v, ended %v with %v", c.opened, c.ended, c.why)
	}
}

// TestCallFromTakenPort: the namespace would take two clients for one.
func TestCallFromTakenPort(t *testing.T) {
	w := newWorld(t)
	w.call(80).answer()
	p := w.peer(80)
	if _, err := w.tr.Call(Call{Socket: &fakeSocket{}, Source: p.flow.target(), Target: p.flow.source()}); err != nil {
		t.Fatal(err)
	}
	out := w.take()
	if len(out) != 1 || out[0].flow == p.flow || out[0].flow.source() != p.flow.source() || out[0].flow.target().Addr() != p.flow.target().Addr() {
		t.Errorf("got %+v", out)
	}
	if _, err := w.tr.Call(Call{Socket: &fakeSocket{}, Source: netip.AddrPortFrom(p.flow.target().Addr(), 0), Target: p.flow.source()}); err != nil {
		t.Error(err)
	}
}

// TestMappedStaysMapped: an IPv4 address in an IPv6 packet is not taken for one of IPv4.
func TestMappedStaysMapped(t *testing.T) {
	w := newWorld(t)
	w.v6 = true
	p := w.peer(1)
	p.flow.outside = mapped([4]byte{127, 0, 0, 1})
	p.syn()
	if len(w.sockets) != 1 || !w.sockets[0].target.Addr().Is4In6() {
		t.Errorf("dialed %v", w.sockets)
	}
}
