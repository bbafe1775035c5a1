package userlandproxy

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"rootlesskit/internal/netns"
	"rootlesskit/internal/wire"
)

// request asks who listens at an address.
type request struct {
	Proto int            `json:"proto"` // unix.IPPROTO_TCP or unix.IPPROTO_UDP
	At    netip.AddrPort `json:"at"`
}

// answer comes with a pidfd of the proxy, if the kernel supports pidfds.
type answer struct {
	// Age is how long the listener has been known, in milliseconds; -1 if there is
	// none.
	Age int64 `json:"age"`
	// Proxy says that the listener is a userland proxy.
	Proxy bool `json:"proxy,omitempty"`
	// Container is where the proxy leads, if the relay may connect to it directly;
	// otherwise Problem says why not.
	Container netip.AddrPort `json:"container"`
	Problem   string         `json:"problem,omitempty"`
}

const findMethod = "userlandproxy.find"

// Handlers returns the handlers of this package's methods, for the child.
func Handlers(_ context.Context, ns *netns.Namespace) wire.Handlers {
	a := &agent{ns: ns, known: map[request]*listener{}}
	return wire.Handlers{findMethod: a.answerFind}
}

// agent works in the child. It remembers what it has found out about listeners.
type agent struct {
	ns *netns.Namespace

	mu    sync.Mutex
	known map[request]*listener
}

// listener is the socket that listens at an address.
type listener struct {
	inode         uint64
	since, looked time.Time // when it was first seen, and last examined
	// isProxy says that a proxy has the socket; otherwise none had it when it was
	// last examined.
	isProxy bool
	proxy   holder
	command commandLine
}

// maxKnown bounds the listeners that are remembered.
const maxKnown = 4 << 10

func (a *agent) answerFind(_ context.Context, msg wire.Message) (any, []int, error) {
	var req request
	if err := msg.Decode(&req); err != nil {
		return nil, nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var reply answer
	pidfd := -1
	err := a.ns.Do(func() (err error) {
		reply, pidfd, err = a.find(req, time.Now())
		return err
	})
	if err != nil || pidfd < 0 {
		return reply, nil, err
	}
	return reply, []int{pidfd}, nil
}

// find answers a request, inside the namespace. It checks the container's
// address each time, since its bridge may have gone.
func (a *agent) find(req request, now time.Time) (reply answer, pidfd int, err error) {
	sockets, err := netns.ListeningSockets(req.Proto, req.At.Port())
	if err != nil {
		return answer{}, -1, fmt.Errorf("looking for a userland proxy at %s: %w", req.At, err)
	}
	inode := serving(sockets, req.At.Addr())
	if inode == 0 {
		delete(a.known, req)
		return answer{Age: -1}, -1, nil
	}
	l := a.listener(req, inode, now)
	reply.Age = now.Sub(l.since).Milliseconds()
	if !l.isProxy {
		return reply, -1, nil
	}
	pidfd, ok := l.proxy.open()
	if !ok {
		delete(a.known, req)
		return reply, -1, nil
	}
	reply.Proxy = true
	if err := checkNeighbour(l.command.container.Addr()); err != nil {
		reply.Problem = err.Error()
	} else {
		reply.Container = l.command.container
	}
	return reply, pidfd, nil
}

// listener returns what is known about a socket. A socket that belongs to no proxy
// may get one later: an engine that listens itself hands its socket over to a
// proxy. So such a socket is examined again, less and less often.
func (a *agent) listener(req request, inode uint64, now time.Time) *listener {
	l := a.known[req]
	if l == nil || l.inode != inode || l.isProxy && !l.proxy.holds() {
		if len(a.known) >= maxKnown {
			clear(a.known)
		}
		l = &listener{inode: inode, since: now}
		a.known[req] = l
	}
	if !l.isProxy && now.Sub(l.looked) >= min(l.looked.Sub(l.since), maxPause) {
		l.looked = now
		l.proxy, l.command, l.isProxy = findProxy(req.Proto, req.At.Port(), inode)
	}
	return l
}

// maxPause is the longest time between two examinations of a socket without a proxy.
const maxPause = time.Minute

// serving returns the socket that gets the connections to an address: the one
// that is bound to it, or else the one that is bound to all addresses. It returns
// 0 if there is none, or if several share the connections.
func serving(sockets []netns.ListeningSocket, ip netip.Addr) uint64 {
	all := netip.IPv6Unspecified()
	if ip.Is4() {
		all = netip.IPv4Unspecified()
	}
	for _, bound := range []netip.Addr{ip, all} {
		inode := uint64(0)
		for _, s := range sockets {
			if s.Addr != bound {
				continue
			}
			if inode != 0 && s.Inode != inode {
				return 0
			}
			inode = s.Inode
		}
		if inode != 0 {
			return inode
		}
	}
	return 0
}
