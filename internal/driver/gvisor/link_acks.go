package gvisor

// Theory of operation.
//
// The stack acknowledges received data at once, in a separate packet, which
// costs as much as one with data. If two programs take turns with requests and
// replies, the next data would carry the acknowledgement a moment later. So it
// is held back for a few milliseconds, as RFC 1122 (4.2.3.2) allows: data that
// is sent in the meantime takes its place, a second acknowledgement is sent at
// once, and otherwise it is sent when the time is up.
//
// This would slow down a peer that does not send its next piece before the last
// one is acknowledged (Nagle's algorithm). So acknowledgements are only held
// back after a connection has taken a few turns, with one acknowledgement
// between data and data, and no longer once the pattern is broken by two
// acknowledgements in a row, or by one that waited in vain. Bulk traffic is
// never affected.

import (
	"hash/maphash"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// ackTick is the least time for which an acknowledgement is held back, and
	// twice this the longest: less than the 10 ms after which Linux may probe for
	// a lost one.
	ackTick = 4 * time.Millisecond
	// ackTurns is how many turns a connection must have taken.
	ackTurns = 3
	// maxHeldBytes is the most that may wait to be acknowledged.
	maxHeldBytes = 16 << 10
	// ackSlots is how many connections are tracked at a time. If there are more,
	// they share the slots, and hold back less.
	ackSlots = 256
	// plainAckLen is a TCP header with timestamps and no further options, such
	// as selective acknowledgements.
	plainAckLen = header.TCPMinimumSize + 12
)

// ackHolder holds back acknowledgements of the stack.
type ackHolder struct {
	write func(*stack.PacketBuffer)
	seed  maphash.Seed

	mu      sync.Mutex
	flows   []ackFlow // nil until the first acknowledgement
	ticking bool
	closed  bool
}

// ackKey is the addresses and ports of a connection.
type ackKey [2*header.IPv6AddressSize + 4]byte

// ackFlow is what is known about a connection.
type ackFlow struct {
	key   ackKey
	acked uint32              // the last acknowledgement sent, or held
	row   int                 // acknowledgements since the last data
	turns int                 // data after one acknowledgement, in a row
	held  *stack.PacketBuffer // nil: none
	aged  bool                // held since before the last tick
}

func newAckHolder(write func(*stack.PacketBuffer)) *ackHolder {
	return &ackHolder{write: write, seed: maphash.MakeSeed()}
}

// hold examines a packet that is about to be sent, and returns true if it keeps
// the packet.
func (a *ackHolder) hold(pkt *stack.PacketBuffer) bool {
	if pkt.TransportProtocolNumber != header.TCPProtocolNumber {
		return false
	}
	tcp := header.TCP(pkt.TransportHeader().Slice())
	if len(tcp) < header.TCPMinimumSize {
		return false
	}
	data := pkt.Data().Size() > 0
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || data && a.flows == nil {
		return false
	}
	if a.flows == nil {
		a.flows = make([]ackFlow, ackSlots)
	}
	key := ackKeyOf(pkt, tcp)
	f := &a.flows[maphash.Comparable(a.seed, key)%ackSlots]
	if f.key != key {
		a.letGo(f)
		*f = ackFlow{key: key}
	}
	advance := tcp.AckNumber() - f.acked
	f.acked = tcp.AckNumber()
	switch {
	case data:
		f.data()
		return false
	case tcp.Flags() != header.TCPFlagAck:
		f.drop() // the end or the beginning of a connection
		*f = ackFlow{}
		return false
	case !f.ack() || advance == 0 || advance > maxHeldBytes || tcp.WindowSize() == 0 || len(tcp) > plainAckLen:
		return false
	}
	f.held, f.aged = pkt.IncRef(), false
	a.arm()
	return true
}

// data is called for data, which acknowledges too.
func (f *ackFlow) data() {
	switch {
	case f.row == 1:
		f.turns++
	case f.row > 1:
		f.turns = 0
	}
	f.row = 0
	f.drop()
}

// ack is called for an acknowledgement without data, and returns true if it may
// be held back.
func (f *ackFlow) ack() bool {
	f.row++
	f.drop()
	return f.row == 1 && f.turns >= ackTurns
}

// drop drops an acknowledgement that another packet replaces.
func (f *ackFlow) drop() {
	if f.held != nil {
		f.held.DecRef()
		f.held = nil
	}
}

// letGo sends the held acknowledgement.
func (a *ackHolder) letGo(f *ackFlow) {
	if f.held != nil {
		a.write(f.held)
		f.turns = 0
		f.drop()
	}
}

// arm starts the clock, with the lock held.
func (a *ackHolder) arm() {
	if !a.ticking {
		a.ticking = true
		time.AfterFunc(ackTick, a.tick)
	}
}

// tick sends what has been held back for long enough.
func (a *ackHolder) tick() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ticking = false
	for i := range a.flows {
		f := &a.flows[i]
		switch {
		case f.held == nil:
		case f.aged:
			a.letGo(f)
		default:
			f.aged = true
			a.arm()
		}
	}
}

// close forgets everything.
func (a *ackHolder) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	for i := range a.flows {
		a.flows[i].drop()
	}
	a.flows = nil
}

func ackKeyOf(pkt *stack.PacketBuffer, tcp header.TCP) (key ackKey) {
	ip := pkt.NetworkHeader().Slice()
	n := 0
	if pkt.NetworkProtocolNumber == header.IPv6ProtocolNumber {
		n = copy(key[:], ip[8:header.IPv6MinimumSize])
	} else {
		n = copy(key[:], ip[12:header.IPv4MinimumSize])
	}
	copy(key[n:], tcp[:4])
	return key
}
