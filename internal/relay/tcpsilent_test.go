package relay

import (
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// silentServer listens with a queue that is full: what connects is not answered.
func silentServer(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, loopback4); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, _ := unix.Getsockname(fd)
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(sa.(*unix.SockaddrInet4).Port))
	for range 2 { // the queue takes one more than it was asked for
		c, err := net.DialTimeout("tcp", addr.String(), 50*time.Millisecond)
		if err == nil {
			t.Cleanup(func() { c.Close() })
		}
	}
	return addr
}

// forwardBy forwards by a target and a Reroute.
func forwardBy(t *testing.T, to netip.AddrPort, reroute func(error) (Route, bool)) (*TCPPort, string) {
	t.Helper()
	return forwardTo(t, TCPConfig{
		Router: routes{route: routeTo(to), reroute: func(_, _ netip.AddrPort, err error) (Route, bool) { return reroute(err) }},
	})
}

// TestUnansweredConnectIsRerouted: what the client has sent meanwhile arrives.
func TestUnansweredConnectIsRerouted(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	silent := silentServer(t)
	_, addr := forwardBy(t, silent, func(err error) (Route, bool) {
		var none *NoAnswer
		if !errors.As(err, &none) || none.Target != silent {
			t.Errorf("the reason is %v", err)
		}
		return Route{Target: other.Addr().(*net.TCPAddr).AddrPort()}, true
	})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	_ = other.(*net.TCPListener).SetDeadline(time.Now().Add(time.Minute))
	server, err := other.Accept()
	if err != nil {
		t.Fatalf("the other way was not taken: %v", err)
	}
	defer server.Close()
	buf := make([]byte, 10)
	_ = server.SetReadDeadline(time.Now().Add(time.Minute))
	if n, err := server.Read(buf); string(buf[:n]) != "hello" {
		t.Errorf("the server got %q, %v", buf[:n], err)
	}
}

// TestClientsOfASilentServerLeave: whether they close or reset, and have sent
// something or not, nothing of them stays.
func TestClientsOfASilentServerLeave(t *testing.T) {
	var asked atomic.Int32
	p, addr := forwardBy(t, silentServer(t), func(error) (Route, bool) {
		asked.Add(1)
		return Route{}, false
	})
	for i := range 8 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if i&1 != 0 {
			_, _ = c.Write([]byte("hello"))
		}
		if i&2 != 0 {
			_ = c.(*net.TCPConn).SetLinger(0)
		}
		if i&4 != 0 { // it leaves when the server is known to be silent
			until(t, "a look for another way", func() bool { return asked.Load() >= int32(i-4+1) })
		}
		c.Close()
	}
	until(t, "no connection is left", func() bool { d := p.Details(); return d.Accepted == 8 && d.Active == 0 })
}

// TestAnsweredWithoutItsEvent: a process that was stopped sees the time that is up
// before the answer that came in it.
func TestAnsweredWithoutItsEvent(t *testing.T) {
	p, _ := forward(t, serve(t, echo))
	client := timeIsUpFirst(t, p, func(c *tcpConn, socket int) {
		if got := int(c.side[child].fd); got != socket {
			t.Errorf("the connection on descriptor %d was dropped for one on %d", socket, got)
		}
	})
	sendAndEcho(t, client, "hello")
}

// TestRefusedWithoutItsEvent: a refusal that came in time is not taken for silence.
func TestRefusedWithoutItsEvent(t *testing.T) {
	reasons := make(chan error, 2)
	p, _ := forwardBy(t, unused(t, "127.0.0.1"), func(err error) (Route, bool) {
		reasons <- err
		return Route{}, false
	})
	timeIsUpFirst(t, p, func(*tcpConn, int) {})
	if err := <-reasons; !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("it is said that %v", err)
	}
}

// timeIsUpFirst gives a port a client, and ends the time for the server's answer before
// the loop can see that the answer is there. look is called in that loop.
func timeIsUpFirst(t *testing.T, p *TCPPort, look func(c *tcpConn, socket int)) (client *net.TCPConn) {
	t.Helper()
	listener, addr := listenFD(t)
	t.Cleanup(func() { unix.Close(listener) })
	client = dial(t, addr)
	accepted := acceptOn(t, listener)
	own, err := unix.Dup(accepted) // the relay closes its descriptor
	if err != nil {
		t.Fatal(err)
	}
	part := p.parts[0]
	pool := part.port.cfg.Pool(unix.AF_INET)
	untilFull(t, pool)
	do(t, part.loop, func() {
		socket, _ := pool.get()
		part.accepted(own, client.LocalAddr().(*net.TCPAddr).AddrPort(), socket)
		c := part.conns.first
		part.loop.stopTimer(c.opening.deadline)
		c.unanswered()
		look(c, socket)
	})
	return client
}
