package translate

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"time"

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
		next := w.timeout()
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

// timeout is how long nothing is due; negative: for ever.
func (w *world) timeout() time.Duration {
	due, ok := w.tr.Due()
	if !ok {
		return -1
	}
	return max(0, due-w.now)
}

// take returns what was sent to the namespace since the last time.
func (w *world) take() []segment {
	out := w.out
	w.out = nil
	return out
}
