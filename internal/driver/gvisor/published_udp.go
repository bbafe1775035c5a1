package gvisor

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/sockio"
)

const (
	// maxPublishedFlows bounds the flows of all published UDP ports.
	maxPublishedFlows = 8192
	// publishedIdle is how long such a flow may be silent while there is room:
	// peers of games, tunnels and telephones are quiet for long.
	publishedIdle = time.Hour
)

// publishedUDP is the table of flows that clients of published ports have
// begun. The namespace sees a client under a source address and port, by which
// its answers are known.
type publishedUDP struct {
	frames *frameWriter
	policy *policy
	flows  *flowTable[insideKey, *udpFlow]

	mu      sync.Mutex
	origins map[netip.AddrPort][]origin // by the address of the server inside
}

// origin is a socket of a published port, which what its server sends leaves
// from.
type origin struct {
	port   *udpPort
	socket *dgramSocket
	is6    bool
}

// insideKey names a flow as the namespace sees it.
type insideKey struct{ source, target netip.AddrPort }

// clientKey names a flow as the host sees it.
type clientKey struct {
	client netip.AddrPort
	local  netip.Addr // the address that the client sent to, on a wildcard socket
}

// udpFlow is a client of a published port.
type udpFlow struct {
	port   *udpPort
	socket *dgramSocket
	client clientKey
	inside insideKey
	to     sockio.Addr
	oob    []byte // makes answers leave from the local address
}

func newPublishedUDP(w *frameWriter, p *policy) *publishedUDP {
	return &publishedUDP{
		frames:  w,
		policy:  p,
		origins: map[netip.AddrPort][]origin{},
		flows:   newFlowTable(maxPublishedFlows, publishedIdle, func(_ insideKey, f *udpFlow) { f.port.forget(f) }),
	}
}

// reply carries a datagram of the namespace back to a client. It returns false
// if the datagram does not belong to a flow.
func (p *publishedUDP) reply(d datagram) bool {
	f, ok := p.flows.get(insideKey{source: d.dst, target: d.src})
	if !ok {
		return false
	}
	f.port.counters.bytesOut.Add(uint64(len(d.payload)))
	if err := f.socket.sendSegments(d.payload, d.segment, f.oob, &f.to); err != nil {
		f.port.counters.failed(err)
	}
	return true
}

// begin sends a datagram of the namespace that belongs to no flow from the port
// on which its sender is published. It returns false if there is none. An answer
// will begin a flow. dst is the destination as the host knows it.
func (p *publishedUDP) begin(d datagram, dst netip.AddrPort) bool {
	if p.policy.inboundSource(dst.Addr(), d.src.Addr().Is6()) != d.dst.Addr() {
		return false // the datagram would leave from another address
	}
	p.mu.Lock()
	origins := p.origins[d.src]
	p.mu.Unlock()
	for _, o := range origins {
		if o.is6 != dst.Addr().Is6() {
			continue
		}
		to := sockio.AddrOf(dst)
		// It fails if there is no route from the port's address, such as a loopback
		// address.
		if o.socket.sendSegments(d.payload, d.segment, hopLimit(d.ttl, o.is6), &to) == nil {
			o.port.counters.bytesOut.Add(uint64(len(d.payload)))
			return true
		}
	}
	return false
}

// open and shut list the sockets of a port.
func (p *publishedUDP) open(target netip.AddrPort, o origin) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.origins[target] = append(slices.Clip(p.origins[target]), o)
}

func (p *publishedUDP) shut(port *udpPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for target, origins := range p.origins {
		left := slices.DeleteFunc(slices.Clone(origins), func(o origin) bool { return o.port == port })
		if p.origins[target] = left; len(left) == 0 {
			delete(p.origins, target)
		}
	}
}

// refused ends a flow whose datagram the namespace has refused. It returns
// false if there is no such flow. The client cannot be notified.
func (p *publishedUDP) refused(key insideKey) bool {
	f, ok := p.flows.get(key)
	if !ok {
		return false
	}
	f.port.counters.refused.Add(1)
	f.port.counters.failed(fmt.Errorf("datagram to %s: %w", key.target, unix.ECONNREFUSED))
	p.flows.remove(key)
	return true
}

// udpPort is a published UDP port.
type udpPort struct {
	published *publishedUDP
	sources   *clientSources
	counters  counters
	sockets   []*dgramSocket
	readers   sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	clients map[clientKey]*udpFlow
}

// serve carries in the datagrams of one socket. target is their destination,
// and wildcard says that the socket has no specific address.
func (p *udpPort) serve(socket *dgramSocket, target netip.AddrPort) {
	socket.serve(func(r received) {
		info := sockio.ParseInfo(r.oob)
		key := clientKey{client: r.from.AddrPort(), local: info.LocalAddr()}
		f := p.flow(socket, key, r.from, &info, target)
		if f == nil {
			return
		}
		p.counters.bytesIn.Add(uint64(len(r.data)))
		p.published.frames.udp(f.inside.source, f.inside.target, r.data)
	})
}

// flow returns the flow of a client; nil if there cannot be one.
func (p *udpPort) flow(socket *dgramSocket, key clientKey, from *sockio.Addr, info *sockio.Info, target netip.AddrPort) *udpFlow {
	p.mu.Lock()
	f := p.clients[key]
	p.mu.Unlock()
	if f != nil {
		p.published.flows.get(f.inside) // marks it as used
		return f
	}
	f = &udpFlow{port: p, socket: socket, client: key, to: *from}
	if key.local.IsValid() {
		f.oob = sockio.AppendLocal(nil, sockio.Family(key.local), info)
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.clients[key] = f
	p.mu.Unlock()
	if !p.published.add(f, target) {
		p.forget(f)
		return nil
	}
	p.counters.accepted.Add(1)
	return f
}

// add gives a flow its source inside: the client's own port, unless another
// flow has it.
func (p *publishedUDP) add(f *udpFlow, target netip.AddrPort) bool {
	source := f.port.sources.source(f.client.client.Addr(), target.Addr().Is6())
	f.inside = insideKey{source: netip.AddrPortFrom(source, f.client.client.Port()), target: target}
	const attempts = 32
	for range attempts {
		if p.flows.add(f.inside, f) {
			return true
		}
		port := uint16(1024 + rand.IntN(1<<16-1024))
		f.inside.source = netip.AddrPortFrom(source, port)
	}
	return false
}

// forget removes a flow that has left the table of flows.
func (p *udpPort) forget(f *udpFlow) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.clients[f.client] == f {
		delete(p.clients, f.client)
	}
}

// Close implements io.Closer.
func (p *udpPort) Close() error {
	p.mu.Lock()
	p.closed = true
	flows := make([]*udpFlow, 0, len(p.clients))
	for _, f := range p.clients {
		flows = append(flows, f)
	}
	p.mu.Unlock()
	p.published.shut(p)
	for _, s := range p.sockets {
		s.close()
	}
	p.readers.Wait()
	for _, f := range flows {
		p.published.flows.remove(f.inside)
	}
	return nil
}

func (p *udpPort) active() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return uint64(len(p.clients))
}

// counters are the counters of a published port.
type counters struct {
	accepted, refused, bytesIn, bytesOut, acceptErrors atomic.Uint64
	active                                             atomic.Int64
	lastError                                          atomic.Pointer[string]
}

func (c *counters) failed(err error) {
	text := err.Error()
	c.lastError.Store(&text)
}
