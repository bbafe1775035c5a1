package gvisor

import (
	"math/bits"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

const (
	// socketBufferBudget is what all connections together may buffer in each
	// direction, before a connection's share falls to the minimum.
	socketBufferBudget = 128 << 20
	minSocketBuffer    = 32 << 10
	maxSocketBuffer    = 4 << 20
	// initialSocketBuffer is where automatic tuning begins.
	initialSocketBuffer = 1 << 20
)

// socketBuffers sizes the buffers that connections have in the stack: large
// while there are few, smaller the more there are, so that peers who do not
// read cannot make the process grow without bound. The sizes are limits, not
// reservations: an idle connection holds nothing.
type socketBuffers struct {
	mu    sync.Mutex
	stack *stack.Stack
	open  int
}

// add counts connections that begin, or, negative, have ended.
func (b *socketBuffers) add(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := socketBufferSize(b.open)
	b.open += n
	if after := socketBufferSize(b.open); after != before {
		_ = setSocketBuffers(b.stack, after) // only fails for invalid sizes
	}
}

// tuneSend gives the send buffer of a connection its share, no more than most.
// The stack's own tuning is off from then on: it forgets a writer who waits for
// room when the limit falls below the size that the buffer has.
func (b *socketBuffers) tuneSend(ep tcpip.Endpoint, most int) {
	ep.SocketOptions().SetSendBufferSize(int64(min(socketBufferSize(b.count()), most)), true)
}

// count is how many connections there are.
func (b *socketBuffers) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open
}

// socketBufferSize is the largest buffer with that many connections. It takes
// few values, so as not to change with each connection.
func socketBufferSize(connections int) int {
	octave := 1 << bits.Len(uint(max(connections-1, 0)))
	return min(max(socketBufferBudget/octave, minSocketBuffer), maxSocketBuffer)
}

// setSocketBuffers sets the limits of automatic tuning, and where new
// connections begin.
func setSocketBuffers(s *stack.Stack, size int) tcpip.Error {
	initial := min(initialSocketBuffer, size)
	send := tcpip.TCPSendBufferSizeRangeOption{Min: minSocketBuffer, Default: initial, Max: size}
	if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, &send); err != nil {
		return err
	}
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: minSocketBuffer, Default: initial, Max: size}
	return s.SetTransportProtocolOption(tcp.ProtocolNumber, &receive)
}
