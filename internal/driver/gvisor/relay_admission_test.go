package gvisor

import (
	"context"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"rootlesskit/api"
)

// TestAdmission: so many connections have a turn at a time, and one that the
// namespace does not answer gives its own up, once.
func TestAdmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdmission()
		var ends []func()
		for range maxTurns {
			if !a.wait(t.Context()) {
				t.Fatal("there was no place")
			}
			ends = append(ends, a.begin())
		}
		next := make(chan bool, 1)
		ask := func() { next <- a.wait(t.Context()) }
		go ask()
		synctest.Wait()
		if len(next) != 0 {
			t.Fatalf("%d have a turn, want %d", maxTurns+1, maxTurns)
		}
		ends[0]()
		ends[0]()
		if !<-next {
			t.Fatal("the end of a turn let nobody in")
		}
		go ask()
		synctest.Wait()
		if len(next) != 0 {
			t.Fatal("the end of one turn let two in")
		}
		time.Sleep(turnTime) // of the bubble's clock
		if !<-next {
			t.Fatal("the end of silent turns let nobody in")
		}
		synctest.Wait()
		if len(a.places) != 2 {
			t.Errorf("%d places are taken, want 2", len(a.places))
		}
	})
}

func TestAdmissionEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if a := (&admission{places: make(chan struct{})}); a.wait(ctx) {
		t.Error("there was a place after the end")
	}
}

// TestAdmissionInOrder: connections that have to wait cost the launcher nothing,
// come in the order of their arrival, and hold up none that was there before.
func TestAdmissionInOrder(t *testing.T) {
	const clients = 200
	s := newSandbox(t)
	port := s.published(api.PortSpec{Proto: "tcp", ParentIP: hostAddr4.String(), ParentPort: 80, ChildPort: 80})
	l := s.child.ListenTCP(t, "tcp", "0.0.0.0:80")
	defer l.Close()
	to := netip.AddrPortFrom(hostAddr4, 80)
	first := mustDial(t, s.host, netip.Addr{}, to)
	go echo(mustAccept(t, l))
	expectEcho(t, first, "here")

	p := tcpPortOf(port)
	for range maxTurns {
		p.admission.wait(t.Context())
	}
	p.admission.time = time.Hour // however busy the machine is
	for i := range clients {
		if _, err := mustDial(t, s.host, netip.Addr{}, to).Write([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	expectEcho(t, first, "still here")
	if d := details(port); d.Accepted != 1 || p.relays.running() != 1 {
		t.Errorf("%d connections were let in, and %d run, beside one that was there", d.Accepted-1, p.relays.running()-1)
	}
	p.admission.leave() // one at a time comes in now
	_ = l.SetDeadline(time.Now().Add(time.Minute))
	for i := range clients {
		if got := firstByte(t, mustAccept(t, l)); got != byte(i) {
			t.Fatalf("client %d came as number %d", got, i)
		}
	}
	for range maxTurns - 1 {
		p.admission.leave()
	}
}

func firstByte(t *testing.T, c *net.TCPConn) byte {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	var b [1]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		t.Fatal(err)
	}
	return b[0]
}
