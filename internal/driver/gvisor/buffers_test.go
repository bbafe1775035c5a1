package gvisor

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/waiter"

	"rootlesskit/api"
)

// full reports whether the send queues of all relays of a group are full.
func (g *relayGroup) full() bool {
	full := true
	g.eachRelay(func(r *relay) { full = full && r.ep.Readiness(waiter.WritableEvents) == 0 })
	return full
}

// TestTransferGoesOnWhenOthersCome: a transfer whose queue is full goes on,
// though the connections that came meanwhile have left it a smaller share of the
// buffers, and when they have gone.
func TestTransferGoesOnWhenOthersCome(t *testing.T) {
	for _, c := range []struct {
		name      string
		published bool
		before    int // connections that were there before
	}{
		{"published", true, 0},
		{"published, beside others", true, 100},
		{"outbound", false, 0},
		{"outbound, beside others", false, 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSandbox(t)
			s.network.buffers.add(c.before)
			group, from, listen, at := s.network.outbound.relays, s.child, s.host, hostAddr4.String()+":80"
			if c.published {
				port := s.published(api.PortSpec{Proto: "tcp", ParentIP: hostAddr4.String(), ParentPort: 80, ChildPort: 80})
				group, from, listen, at = tcpPortOf(port).relays, s.host, s.child, "0.0.0.0:80"
			}
			l := listen.ListenTCP(t, "tcp", at)
			defer l.Close()
			client := mustDial(t, from, netip.Addr{}, netip.AddrPortFrom(hostAddr4, 80))
			server := mustAccept(t, l)
			_ = server.SetDeadline(time.Now().Add(time.Minute))
			writer, reader := server, client // who reads is in the namespace
			if c.published {
				writer, reader = client, server
			}
			transferAmongOthers(t, s.network.buffers, group, writer, reader)
		})
	}
}

// transferAmongOthers lets many others come when the first queue is full, and go
// again half way.
func transferAmongOthers(t *testing.T, buffers *socketBuffers, group *relayGroup, writer, reader *net.TCPConn) {
	const size, others = 24 << 20, 1000
	sent := make(chan error, 1)
	go func() {
		_, err := writer.Write(make([]byte, size))
		sent <- err
		writer.CloseWrite()
	}()
	eventually(t, "a full queue", func() bool { return group.running() == 1 && group.full() })
	buffers.add(others)
	if _, err := io.CopyN(io.Discard, reader, size/2); err != nil {
		t.Fatalf("the first half: %v", err)
	}
	eventually(t, "a full queue again", group.full)
	buffers.add(-others)
	if n, err := io.Copy(io.Discard, reader); err != nil || n != size/2 {
		t.Fatalf("of the second half of %d bytes %d came: %v", size/2, n, err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}
