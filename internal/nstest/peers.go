package nstest

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
)

// AnswerTCP accepts connections until the test ends, and answers whatever arrives
// with the address of the peer.
func AnswerTCP(t testing.TB, l net.Listener) {
	var conns sync.WaitGroup
	var all []net.Conn
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all = append(all, c)
			conns.Go(func() { answer(c) })
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-ended
		for _, c := range all {
			c.Close()
		}
		conns.Wait()
	})
}

func answer(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 64)
	for {
		if _, err := c.Read(buf); err != nil {
			return
		}
		_, _ = io.WriteString(c, Peer(c.RemoteAddr()))
	}
}

// AnswerUDP answers each datagram with the address of its sender, until the test ends.
func AnswerUDP(t testing.TB, pc net.PacketConn) {
	var loop sync.WaitGroup
	loop.Go(func() {
		buf := make([]byte, 64)
		for {
			_, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo([]byte(Peer(from)), from)
		}
	})
	t.Cleanup(func() { pc.Close(); loop.Wait() })
}

// Peer returns an address and port without the mapping of dual-stack sockets.
func Peer(a net.Addr) string {
	addr := netip.MustParseAddrPort(a.String())
	return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()).String()
}
