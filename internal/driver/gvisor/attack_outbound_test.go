package gvisor

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// control runs f with the descriptor of a connection.
func control(t *testing.T, c *net.TCPConn, f func(fd int) error) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failure error
	if err := raw.Control(func(fd uintptr) { failure = f(int(fd)) }); err != nil || failure != nil {
		t.Fatal(err, failure)
	}
}

// TestOutboundKeepAlive: a program inside that asks whether its peer is there gets an
// answer.
func TestOutboundKeepAlive(t *testing.T) {
	s := newSandbox(t)
	to := netip.AddrPortFrom(hostAddr4, 7)
	accepts(s.host.ListenTCP(t, "tcp", to.String()), echo)
	conn := mustDial(t, s.child, netip.Addr{}, to)
	config := net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 30}
	if err := conn.SetKeepAliveConfig(config); err != nil {
		t.Fatal(err)
	}
	expectEcho(t, conn, "before")
	eventually(t, "an answer to a probe", func() bool {
		var answered bool
		control(t, conn, func(fd int) error {
			info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
			answered = err == nil && info.Probes == 0 && info.Last_ack_recv+500 < info.Last_data_recv
			return err
		})
		return answered
	})
	expectEcho(t, conn, "after")
}

// TestOutboundResetAfterData: data and a reset that are there at once.
func TestOutboundResetAfterData(t *testing.T) {
	s := newSandbox(t)
	to := netip.AddrPortFrom(hostAddr4, 7)
	l := s.host.ListenTCP(t, "tcp", to.String())
	for range 20 {
		conn := mustDial(t, s.child, netip.Addr{}, to)
		host, err := l.AcceptTCP()
		if err != nil {
			t.Fatal(err)
		}
		_ = host.SetLinger(0)
		_, _ = io.WriteString(host, "half")
		host.Close()
		if b, err := io.ReadAll(conn); !errors.Is(err, unix.ECONNRESET) {
			t.Fatalf("%q, %v, want a reset", b, err)
		}
	}
}

// TestOutboundUrgent: urgent data does not hold up what comes after it.
func TestOutboundUrgent(t *testing.T) {
	s := newSandbox(t)
	to := netip.AddrPortFrom(hostAddr4, 7)
	l := s.host.ListenTCP(t, "tcp", to.String())
	for _, end := range []bool{false, true} {
		conn := mustDial(t, s.child, netip.Addr{}, to)
		host, err := l.AcceptTCP()
		if err != nil {
			t.Fatal(err)
		}
		// The loop sees all of it at once, if it is not in the middle of something.
		control(t, host, func(fd int) error {
			_, err := unix.SendmsgN(fd, []byte("before!"), nil, nil, unix.MSG_OOB)
			_, err2 := unix.Write(fd, []byte("after"))
			return errors.Join(err, err2)
		})
		want := "before!after"
		if end {
			host.CloseWrite()
		}
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
		got := make([]byte, len(want))
		if n, err := io.ReadFull(conn, got); err != nil || string(got) != want {
			t.Errorf("%q, %v, want %q", got[:n], err, want)
		}
		host.Close()
	}
}
