package gvisor

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/sockio"
)

// The embedded name server does not resolve names: it forwards queries
// unchanged to the host's name servers, and returns the answers. Over UDP each
// query has its own socket, so that answers can be assigned whatever their IDs,
// and its own port, as RFC 5452 demands against forged answers. An answer that
// does not fit into a datagram comes back truncated, and the client asks again
// over TCP, which is relayed (outboundTCP.dialNameServer).

const (
	// maxQueries bounds the UDP queries in progress.
	maxQueries = 512
	// queryTimeout is how long each of the host's name servers may take to answer.
	// By default, a client asks again after 5 s (resolv.conf(5)).
	queryTimeout = 4 * time.Second
	// dnsHeader is the size of a DNS message's header.
	dnsHeader = 12
)

// dnsRelay carries UDP queries.
type dnsRelay struct {
	ctx       context.Context
	log       *slog.Logger
	socket    socketFunc
	resolvers *resolvers
	frames    *frameWriter
	slots     chan struct{}
	running   sync.WaitGroup
}

func newDNSRelay(ctx context.Context, log *slog.Logger, socket socketFunc, r *resolvers, w *frameWriter) *dnsRelay {
	return &dnsRelay{ctx: ctx, log: log, socket: socket, resolvers: r, frames: w, slots: make(chan struct{}, maxQueries)}
}

// query answers a query asynchronously. The query is lost, as datagrams may be,
// if too many are in progress.
func (r *dnsRelay) query(d datagram) {
	if len(d.payload) < dnsHeader || r.ctx.Err() != nil {
		return
	}
	select {
	case r.slots <- struct{}{}:
	default:
		return
	}
	query := slices.Clone(d.payload)
	r.running.Go(func() {
		defer func() { <-r.slots }()
		r.answer(d.src, d.dst, query)
	})
}

// answer asks one name server after the other.
func (r *dnsRelay) answer(client, server netip.AddrPort, query []byte) {
	for _, upstream := range r.resolvers.servers() {
		err := r.ask(upstream, query, func(answer []byte) { r.frames.udp(server, client, answer) })
		if err == nil || r.ctx.Err() != nil {
			return
		}
		r.log.Debug("name server did not answer", "server", upstream, "error", err)
	}
}

// ask sends a query and passes on the answer with the same ID.
func (r *dnsRelay) ask(upstream netip.AddrPort, query []byte, handOn func(answer []byte)) error {
	sa, family := sockio.Sockaddr(upstream)
	fd, err := r.socket(family, unix.SOCK_DGRAM, unix.IPPROTO_UDP)
	if err != nil {
		return err
	}
	conn := os.NewFile(uintptr(fd), "dns")
	defer conn.Close()
	if err := unix.Connect(fd, sa); err != nil {
		return os.NewSyscallError("connect", err)
	}
	if err := conn.SetDeadline(time.Now().Add(queryTimeout)); err != nil {
		return err
	}
	stop := context.AfterFunc(r.ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write(query); err != nil {
		return err
	}
	return awaitAnswer(conn, query, handOn)
}

// awaitAnswer holds no buffer while it waits.
func awaitAnswer(conn *os.File, query []byte, handOn func(answer []byte)) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failure error
	err = raw.Read(func(fd uintptr) bool {
		b := dgramPool.Get().(*dgramBuffers)
		defer dgramPool.Put(b)
		for {
			n, errno := sockio.Read(int(fd), b.data[0][:])
			answer := b.data[0][:max(n, 0)]
			switch {
			case errno == unix.EAGAIN:
				return false
			case errno != 0:
				failure = errno
				return true
			case len(answer) >= dnsHeader && answer[0] == query[0] && answer[1] == query[1]:
				handOn(answer)
				return true
			}
		}
	})
	return errors.Join(failure, err)
}

// wait waits for the queries in progress, after the end of the context.
func (r *dnsRelay) wait() { r.running.Wait() }
