package gvisor

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// ackWire is where packets go that were not held back.
type ackWire struct {
	t    *testing.T
	acks *ackHolder

	mu   sync.Mutex
	sent []string
}

func newWire(t *testing.T) *ackWire {
	w := &ackWire{t: t}
	w.acks = newAckHolder(func(pkt *stack.PacketBuffer) { w.write("late ", pkt) })
	t.Cleanup(w.acks.close)
	return w
}

func (w *ackWire) write(when string, pkt *stack.PacketBuffer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	tcp := header.TCP(pkt.TransportHeader().Slice())
	w.sent = append(w.sent, fmt.Sprintf("%s%d", when, tcp.AckNumber()))
}

// take returns what was sent since the last call.
func (w *ackWire) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer func() { w.sent = nil }()
	return strings.Join(w.sent, ", ")
}

type segment struct {
	port    uint16 // of the namespace
	ack     uint32
	data    int
	flags   header.TCPFlags // 0: ACK
	closed  bool            // no window
	options int
	v6      bool
}

// send sends segments of the stack.
func (w *ackWire) send(segments ...segment) {
	w.t.Helper()
	for _, s := range segments {
		pkt := s.packet()
		if !w.acks.hold(pkt) {
			w.write("", pkt)
		}
		pkt.DecRef()
	}
}

func (s segment) packet() *stack.PacketBuffer {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: header.IPv6MinimumSize + header.TCPMinimumSize + s.options,
		Payload:            buffer.MakeWithData(make([]byte, s.data)),
	})
	tcp := header.TCP(pkt.TransportHeader().Push(header.TCPMinimumSize + s.options))
	window := uint16(1000)
	if s.closed {
		window = 0
	}
	if s.flags == 0 {
		s.flags = header.TCPFlagAck
	}
	tcp.Encode(&header.TCPFields{
		SrcPort: 80, DstPort: s.port, AckNum: s.ack, Flags: s.flags, WindowSize: window,
		DataOffset: uint8(header.TCPMinimumSize + s.options),
	})
	pkt.TransportProtocolNumber = header.TCPProtocolNumber
	if s.v6 {
		pkt.NetworkProtocolNumber = header.IPv6ProtocolNumber
		header.IPv6(pkt.NetworkHeader().Push(header.IPv6MinimumSize)).Encode(&header.IPv6Fields{
			TransportProtocol: header.TCPProtocolNumber, SrcAddr: stackAddr(hostAddr6), DstAddr: stackAddr(clientAddr6),
		})
		return pkt
	}
	pkt.NetworkProtocolNumber = header.IPv4ProtocolNumber
	header.IPv4(pkt.NetworkHeader().Push(header.IPv4MinimumSize)).Encode(&header.IPv4Fields{
		TotalLength: uint16(pkt.Size()), Protocol: uint8(header.TCPProtocolNumber),
		SrcAddr: stackAddr(netip.MustParseAddr("10.0.2.2")), DstAddr: stackAddr(netip.MustParseAddr("10.0.2.100")),
	})
	return pkt
}

// turns are requests and replies enough for acknowledgements to be held back.
func turns(port uint16) (s []segment) {
	s = append(s, segment{port: port, ack: 1})
	for n := range uint32(ackTurns) {
		s = append(s, segment{port: port, ack: 1 + n*10, data: 10}, segment{port: port, ack: 11 + n*10})
	}
	return s
}

const afterTurns = 1 + ackTurns*10 // what turns has acknowledged

func TestAcksAreHeldBackInTurns(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		w := newWire(t)
		segments := turns(5000)
		for i := range segments {
			segments[i].v6 = v6
		}
		// Of four acknowledgements, the one after the third turn is held.
		w.send(segments...)
		if got, want := w.take(), "1, 1, 11, 11, 21, 21"; got != want {
			t.Errorf("the first turns: %s; want %s", got, want)
		}
		w.send(segment{port: 5000, ack: afterTurns, data: 10, v6: v6})
		if got, want := w.take(), fmt.Sprint(afterTurns); got != want {
			t.Errorf("data in its place: %s; want %s", got, want)
		}
	}
}

func TestHeldAckGoesInTime(t *testing.T) {
	w := newWire(t)
	w.send(turns(5000)...)
	w.take()
	var got string
	eventually(t, "the acknowledgement", func() bool { got = w.take(); return got != "" })
	if want := fmt.Sprint("late ", afterTurns); got != want {
		t.Errorf("%s; want %s", got, want)
	}
	// It waited in vain, so the next is not held.
	w.send(segment{port: 5000, ack: afterTurns, data: 10}, segment{port: 5000, ack: afterTurns + 10})
	if got, want := w.take(), fmt.Sprint(afterTurns, ", ", afterTurns+10); got != want {
		t.Errorf("after that: %s; want %s", got, want)
	}
}

func TestAcksThatAreNotHeldBack(t *testing.T) {
	next := uint32(afterTurns + 10)
	for name, s := range map[string]segment{
		"duplicate":           {ack: afterTurns},
		"window":              {ack: next, closed: true},
		"selective":           {ack: next, options: 24},
		"much":                {ack: next + maxHeldBytes},
		"end":                 {ack: next, flags: header.TCPFlagFin | header.TCPFlagAck},
		"reset":               {ack: next, flags: header.TCPFlagRst | header.TCPFlagAck},
		"another's":           {ack: next, v6: true},
		"begins":              {ack: next, flags: header.TCPFlagSyn | header.TCPFlagAck},
		"data":                {ack: next, data: 1},
		"another port's":      {port: 5001, ack: next},
		"backwards, in a way": {ack: afterTurns - 1},
	} {
		w := newWire(t)
		w.send(turns(5000)...)
		w.send(segment{port: 5000, ack: afterTurns, data: 10})
		w.take()
		if s.port == 0 {
			s.port = 5000
		}
		w.send(s)
		if got, want := w.take(), fmt.Sprint(s.ack); got != want {
			t.Errorf("%s: sent %q, want %s", name, got, want)
		}
	}
}

// TestSecondAckGoesAtOnce: RFC 1122 wants one for every second segment.
func TestSecondAckGoesAtOnce(t *testing.T) {
	w := newWire(t)
	w.send(turns(5000)...)
	w.take()
	w.send(segment{port: 5000, ack: afterTurns + 10})
	if got, want := w.take(), fmt.Sprint(afterTurns+10); got != want {
		t.Errorf("%s; want %s", got, want)
	}
}

// TestRepliesInTwoPieces: a server that waits for the acknowledgement of the
// first piece is never kept waiting.
func TestRepliesInTwoPieces(t *testing.T) {
	w := newWire(t)
	ack := uint32(1)
	w.send(segment{port: 5000, ack: ack})
	for range 20 {
		w.send(segment{port: 5000, ack: ack, data: 10}, segment{port: 5000, ack: ack + 1}, segment{port: 5000, ack: ack + 2})
		if got, want := w.take(), fmt.Sprintf("%d, %d, %d", ack, ack+1, ack+2); !strings.HasSuffix(got, want) {
			t.Fatalf("%s; want %s", got, want)
		}
		ack += 2
	}
}

// TestManyConnectionsShareSlots: what is held is sent when another connection
// needs the place, and nothing is lost.
func TestManyConnectionsShareSlots(t *testing.T) {
	w := newWire(t)
	const connections = 4 * ackSlots
	for port := range uint16(connections) {
		w.send(turns(10_000 + port)...)
	}
	var sent []string
	count := func() (n int) {
		for _, s := range strings.Split(w.take(), ", ") {
			sent = append(sent, strings.TrimPrefix(s, "late "))
		}
		for _, s := range sent {
			if s == fmt.Sprint(afterTurns) {
				n++
			}
		}
		return n
	}
	eventually(t, "all last acknowledgements", func() bool { return count() == connections })
}
