package publish

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/netns"
	"rootlesskit/internal/relay"
	"rootlesskit/internal/sockio"
)

// udpTrials has what a UDP port has found out about a container that it leads to
// directly. Silence and refusals may be normal: a server need not answer, and may be
// about to start. It should see its clients' addresses then, so the proxy is only used
// if there is good reason.
type udpTrials struct {
	container netip.AddrPort
	// reached has the addresses of clients that the container can answer.
	reached map[netip.Addr]bool
	// refused has the clients that the container refuses.
	refused map[netip.AddrPort]*refusal
}

// refusal describes a client that the container refuses, and when the proxy is tried
// next.
type refusal struct {
	pause time.Duration
	next  time.Time
}

// maxTrials bounds the entries of each kind.
const maxTrials = 4 << 10

// of forgets what was found out about any other container.
func (t *udpTrials) of(container netip.AddrPort) {
	if t.container != container || len(t.reached) >= maxTrials || len(t.refused) >= maxTrials {
		*t = udpTrials{container, map[netip.Addr]bool{}, map[netip.AddrPort]*refusal{}}
	}
}

// fails reports whether the proxy should serve a flow that bypasses it. It may block for
// as long as a container takes to answer.
func (r *pastProxy) fails(w *way, f relay.Doubt) bool {
	r.of(w.container)
	switch ip := f.Client.Addr(); {
	case f.Lost:
		return r.tryProxy(f.Client, time.Now())
	case !f.Mute || r.reached[ip]:
		return false
	case f.Route.Source.Addr() != ip || r.ports.reaches(r.ctx, ip, w.container.Addr()):
		r.reached[ip] = true // or the client is seen as the proxy anyway, so there is nothing to gain
		return false
	}
	r.noAnswer(w.container, f.Client)
	r.known.Store(nil)
	return true
}

// tryProxy reports whether it is time to try the proxy for a client that the container
// refuses: a packet filter there may accept the proxy. The proxy is tried less and less
// often, so that a server that starts in the meantime sees its client.
func (t *udpTrials) tryProxy(client netip.AddrPort, now time.Time) bool {
	s := t.refused[client]
	if s == nil {
		t.refused[client] = &refusal{minSilence, now.Add(minSilence)}
		return false
	}
	if now.Before(s.next) {
		return false
	}
	s.pause = min(4*s.pause, maxSilence)
	s.next = now.Add(s.pause)
	return true
}

// discard is a port on which servers hardly ever listen (RFC 863).
const discard = 9

// reaches reports whether packets from a container to a client come back to this host: a
// connection with the client's address is then accepted or refused. If this cannot be
// tried, it returns true.
func (p *Ports) reaches(ctx context.Context, client, container netip.Addr) bool {
	to, family := sockio.Sockaddr(netip.AddrPortFrom(container, discard))
	fds, err := netns.Sockets(ctx, p.namespace, netns.SocketRequest{Family: family, Type: unix.SOCK_STREAM, Count: 1, Transparent: true})
	if err != nil {
		return true
	}
	fd := fds[0]
	defer unix.Close(fd)
	from, _ := sockio.Sockaddr(netip.AddrPortFrom(client, 0))
	if err := unix.Bind(fd, from); err != nil {
		return true
	}
	if err := unix.Connect(fd, to); !errors.Is(err, unix.EINPROGRESS) {
		return true
	}
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(minSilence.Milliseconds()))
	if err != nil || n == 0 {
		return err != nil
	}
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	return err != nil || code == 0 || unix.Errno(code) == unix.ECONNREFUSED
}
