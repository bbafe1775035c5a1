package gvisor

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"rootlesskit/api"
)

// TestTransferGoesOnWhenOthersCome: a transfer goes on when the connections that
// come leave it a smaller share of the buffers than it has, and when they go.
func TestTransferGoesOnWhenOthersCome(t *testing.T) {
	for _, c := range []struct {
		name   string
		before int // connections that were there before
	}{
		{"alone", 0},
		{"beside others", 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSandbox(t)
			s.network.buffers.add(c.before)
			s.published(api.PortSpec{Proto: "tcp", ParentIP: hostAddr4.String(), ParentPort: 80, ChildPort: 80})
			l := s.child.ListenTCP(t, "tcp", "0.0.0.0:80")
			defer l.Close()
			client := mustDial(t, s.host, netip.Addr{}, netip.AddrPortFrom(hostAddr4, 80))
			server := mustAccept(t, l)
			_ = server.SetDeadline(time.Now().Add(time.Minute))
			transferAmongOthers(t, s.network.buffers, client, server)
		})
	}
}

// transferAmongOthers lets many others come and go during a transfer.
func transferAmongOthers(t *testing.T, buffers *socketBuffers, writer, reader *net.TCPConn) {
	const turns, size, others = 10, 4 << 20, 1000
	sent := make(chan error, 1)
	go func() {
		_, err := writer.Write(make([]byte, turns*size))
		sent <- err
		writer.CloseWrite()
	}()
	for turn := range turns {
		come := others
		if turn%2 == 1 {
			come = -others
		}
		buffers.add(come)
		if n, err := io.CopyN(io.Discard, reader, size); err != nil {
			t.Fatalf("turn %d, %d others: of %d bytes %d came: %v", turn, come, size, n, err)
		}
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}
