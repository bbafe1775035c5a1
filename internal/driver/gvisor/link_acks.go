package gvisor

// Theory of operation.
//
// The stack acknowledges what it receives at once, in a packet of its own. Where
// two programs take turns, request and reply, the next data would have carried
// the acknowledgement a moment later, and that packet costs as much as one with
// data. So it is held back for a few milliseconds, as RFC 1122 (4.2.3.2) has it:
// data that is sent meanwhile takes its place, a second acknowledgement goes out
// at once, and the rest goes when the time is up.
//
// A peer that does not send its next piece before the last one is acknowledged
// (Nagle's algorithm) would be slowed down by that. So a connection has to have
// taken a few turns, one acknowledgement between data and data, before one is
// held back, and whatever breaks the pattern ends it: two acknowledgements in a
// row, or one that waited in vain. Bulk traffic is never concerned.

import (
	"hash/maphash"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// ackTick is the least time that an acknowledgement is held back, twice of
	// it the longest: below the 10 ms after which Linux may probe for a lost one.
	ackTick = 4 * time.Millisecond
	// ackTurns is how many turns a connection has to have taken.
	ackTurns = 3
	// maxHeldBytes is the most that may wait to be acknowledged.
	maxHeldBytes = 16 << 10
	// ackSlots is how many connections are known at a time. More share them, and
	// hold back less.
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

// ackFlow is what is known of a connection.
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

// hold looks at a packet that is about to be sent, and is true if it keeps it.
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

// ack is called for an acknowledgement alone, and is true if it may be held
// back.
func (f *ackFlow) ack() bool {
	f.row++
	f.drop()
	return f.row == 1 && f.turns >= ackTurns
}

// drop forgets an acknowledgement whose place another packet takes.
func (f *ackFlow) drop() {
	if f.held != nil {
		f.held.DecRef()
		f.held = nil
	}
}

// letGo sends what was held back.
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
