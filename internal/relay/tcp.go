package relay

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/fdlimit"
	"rootlesskit/internal/sockio"
)

// The TCP data plane, theory of operation.
//
// The listeners of a port are registered with every loop. The loop that accepts a
// client keeps the connection: no two loops ever touch the same one.
//
//	accept -> socket of the pool -> connect, without waiting -> pump both ways
//
// connect on a nonblocking socket returns before the handshake is over, but to a
// server on the same machine it is over by then. So the first bytes are moved at
// once; if it was too early, the write says EAGAIN and the socket becomes
// writable later, which is the usual case of a full peer.
//
// Both sockets are registered once, edge-triggered. What an edge has reported is
// remembered (readable, writable) until a call shows that it no longer holds, so
// that no call is made in vain. A direction keeps what it could not write, and
// reads no more until that is written; so the kernel's windows carry the
// back-pressure to the sender.
//
// The end of a stream is passed on with shutdown, once everything before it has
// been written. A reset is passed on as a reset, also only then: without the
// relay, what the peer sent before the reset would have arrived as well.
//
//	tcp          what is forwarded, and what a port is
//	tcpaccept    clients come in; shortages
//	tcpconn      a connection and its states
//	tcpopening   the ways to its server, until that has accepted
//	tcppump      bytes both ways, through a buffer or a pipe (tcppipe)

// tcpLoop has what the TCP connections of a loop share.
type tcpLoop struct {
	conns int // how many there are
	// buf is scratch space for one read and the write after it; nothing is kept
	// in it when a handler returns.
	buf   []byte
	pipes pipePool
}

const tcpBufferSize = 256 << 10

func newTCPLoop() tcpLoop { return tcpLoop{buf: make([]byte, tcpBufferSize)} }

// TCPConfig configures a forwarded port.
type TCPConfig struct {
	// Listeners are nonblocking listening sockets, which the port takes over.
	Listeners []int
	// Shared says that other processes have the listeners too, which keep
	// listening when the port is closed.
	Shared bool
	// Pool returns the pool of stream sockets of a family, unix.AF_INET or
	// unix.AF_INET6.
	Pool func(family int) *Pool
	// Family is the family of the port's targets: a socket is taken from its pool
	// before a connection is accepted. 0 means unix.AF_INET.
	Family int
	// Router returns the routes to the servers.
	Router Router
	// Log receives faults; nil means the engine's log.
	Log *slog.Logger
}

// TCPPort is a forwarded port: its listeners are registered with every loop, and
// a connection stays on the loop that accepted it.
type TCPPort struct {
	cfg   TCPConfig
	parts []*tcpPart
	close sync.Once
	// congestion is the system's congestion control, for clients on other
	// machines.
	congestion string
	// lastError is the reason of the latest failure.
	lastError atomic.Pointer[string]
	// shortage limits how often a shortage is logged.
	shortage seldom
}

// tcpPart is the part of a port on one loop, to which it belongs.
type tcpPart struct {
	port      *TCPPort
	loop      *loop
	listeners []*tcpListener
	conns     connList
	closed    bool
	stats     tcpStats
}

// tcpStats is written by one loop and read by every goroutine.
type tcpStats struct {
	accepted, refused, closed, acceptErrors atomic.Uint64
	bytes                                   [2]atomic.Uint64 // by direction
}

// localCongestion is the congestion control of paths within the machine, which
// have no congestion. If the system's default is BBR, it would pace packets with
// high-resolution timers, which costs a third of the throughput and half of the
// CPU time of a relayed stream. Every user may choose Reno, and every kernel has
// it (tcp(7), TCP_CONGESTION).
const localCongestion = "reno"

// ForwardTCP starts to forward. It takes over the listeners, even if it fails.
func (e *Engine) ForwardTCP(cfg TCPConfig) (*TCPPort, error) {
	if cfg.Log == nil {
		cfg.Log = e.log
	}
	if cfg.Family == 0 {
		cfg.Family = unix.AF_INET
	}
	p := &TCPPort{cfg: cfg}
	for _, fd := range cfg.Listeners {
		sockio.PrepareTCP(fd)
		p.congestion, _ = unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
		if !cfg.Shared { // otherwise their next user would take this for the system's
			_ = unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, localCongestion)
		}
	}
	started := make(chan error, len(e.loops)) // all at once: each takes a wake-up
	for _, l := range e.loops {
		part := &tcpPart{port: p, loop: l}
		p.parts = append(p.parts, part)
		if !l.mail.Post(func() { started <- part.listen() }) {
			started <- errors.New("the engine is closed")
		}
	}
	var err error
	for range p.parts {
		err = errors.Join(err, <-started)
	}
	if err != nil {
		_ = p.Close()
		return nil, err
	}
	return p, nil
}

// Close closes the listeners and cuts the connections. When it returns, the
// port can be bound again.
func (p *TCPPort) Close() error {
	p.close.Do(func() {
		for _, part := range p.parts {
			part.loop.mail.Call(part.end)
		}
		for _, fd := range p.cfg.Listeners {
			// A program that is being started may hold a copy until its exec.
			if !p.cfg.Shared {
				_ = unix.Shutdown(fd, unix.SHUT_RDWR)
			}
			unix.Close(fd)
		}
	})
	return nil
}

// Details implements driver.Detailer.
func (p *TCPPort) Details() api.PortDetails {
	var d api.PortDetails
	for _, part := range p.parts {
		s := &part.stats
		closed := s.closed.Load() // read first, so that it is not ahead of accepted
		accepted := s.accepted.Load()
		d.Accepted += accepted
		d.Active += accepted - closed
		d.Refused += s.refused.Load()
		d.BytesIn += s.bytes[toChild].Load()
		d.BytesOut += s.bytes[toClient].Load()
		d.AcceptErrors += s.acceptErrors.Load()
	}
	if e := p.lastError.Load(); e != nil {
		d.LastError = *e
	}
	return d
}

// refuse counts a connection that the namespace did not accept.
func (t *tcpPart) refuse(reason string) {
	t.stats.refused.Add(1)
	t.port.lastError.Store(&reason)
}

func (t *tcpPart) listen() error {
	for _, fd := range t.port.cfg.Listeners {
		l := &tcpListener{part: t, fd: fd, ceiling: fdlimit.Ceiling()}
		t.listeners = append(t.listeners, l)
		if err := l.arm(); err != nil {
			return err
		}
	}
	return nil
}

func (t *tcpPart) end() {
	t.closed = true
	for _, l := range t.listeners {
		l.disarm()
	}
	for c := t.conns.first; c != nil; c = t.conns.first {
		c.abort()
	}
}
