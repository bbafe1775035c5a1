package relay

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rootlesskit/api"
)

// guide is what Look answers: for all flows the same.
type guide struct {
	route atomic.Pointer[Route]
	looks atomic.Int32
	asked atomic.Pointer[Doubt] // last
}

func (g *guide) set(r Route) { g.route.Store(&r) }

func (g *guide) look(flows []Doubt) []Route {
	routes := make([]Route, len(flows))
	for i := range flows {
		g.asked.Store(&flows[i])
		routes[i] = *g.route.Load()
		if flows[i].Answered {
			routes[i] = flows[i].Route
			routes[i].Unserved = g.route.Load().Unserved
		}
	}
	g.looks.Add(1) // last: who has seen it may read asked
	return routes
}

func (g *guide) resolve(_, _ netip.AddrPort) Route { return *g.route.Load() }

func (g *guide) config() UDPConfig {
	return UDPConfig{Router: lookingRoutes{routes{route: func(_, _ netip.AddrPort) Route { return Route{} }, resolve: g.resolve}, g.look}}
}

// settle waits until the answer to a look has been applied to the port's one flow.
func settle(t *testing.T, p *UDPPort) {
	t.Helper()
	eventually(t, p, "settled", func(api.PortDetails) (settled bool) {
		p.loop.mail.Call(func() { settled = !p.flows.byUse.front.inDoubt })
		return settled
	})
}

// TestUDPServerComesUpElsewhere: the way was a guess, and a socket is there that is
// not the server (as lo is, for one that answers from another address). The first
// datagram after the server is known gets there.
func TestUDPServerComesUpElsewhere(t *testing.T) {
	_, guess := udpServer(t, "127.0.0.1:0")
	var g guide
	g.set(Route{Target: guess, Unserved: true})
	p := forwardUDP(t, g.config())
	c := dialPort(t, p, "")
	for range 3 {
		send(t, c, "nobody")
	}
	eventually(t, p, "sent", func(d api.PortDetails) bool { return d.BytesIn == 3*6 })
	server, addr := udpServer(t, "127.0.0.1:0")
	g.set(Route{Target: addr})
	send(t, c, "somebody")
	msg, from := receiveFrom(t, server)
	if string(msg) != "somebody" {
		t.Errorf("got %q", msg)
	}
	_, _ = server.WriteToUDPAddrPort([]byte("reply"), from)
	if got := receive(t, c); string(got) != "reply" {
		t.Errorf("got %q", got)
	}
	if d := p.Details(); d.Accepted != 1 || d.Active != 1 {
		t.Errorf("details: %+v", d)
	}
}

// TestUDPServerComesWhileAFlowWaits for its socket: what was sent after that gets to
// it.
func TestUDPServerComesWhileAFlowWaits(t *testing.T) {
	_, guess := udpServer(t, "127.0.0.1:0")
	var g guide
	g.set(Route{Target: guess, Unserved: true})
	pools := newScarcePools(t)
	cfg := g.config()
	cfg.Pool = pools.pool
	p := forwardUDP(t, cfg)
	c := dialPort(t, p, "")
	send(t, c, "1")
	eventually(t, p, "waiting", func(d api.PortDetails) bool { return d.AcceptErrors == 1 })
	server, addr := udpServer(t, "127.0.0.1:0")
	g.set(Route{Target: addr})
	send(t, c, "2")
	close(pools.fill)
	for _, want := range []string{"1", "2"} {
		if got := receive(t, server); string(got) != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestUDPServedFlowStays through a restart of its server, during which nobody is
// found.
func TestUDPServedFlowStays(t *testing.T) {
	server, addr := udpServer(t, unused(t, "127.0.0.1").String())
	var g guide
	g.set(Route{Target: addr})
	p := forwardUDP(t, g.config())
	c := dialPort(t, p, "")
	send(t, c, "1")
	_, first := receiveFrom(t, server)
	_, _ = server.WriteToUDPAddrPort([]byte("reply"), first)
	receive(t, c)
	server.Close()
	g.set(Route{Target: addr, Unserved: true})
	for range 3 {
		looks := g.looks.Load()
		send(t, c, "gap")
		if looks > 0 {
			eventually(t, p, "looked", func(api.PortDetails) bool { return g.looks.Load() > looks })
		}
		eventually(t, p, "refused", func(d api.PortDetails) bool { return d.Refused == 1 })
	}
	server, _ = udpServer(t, addr.String())
	g.set(Route{Target: addr})
	send(t, c, "2")
	for {
		msg, again := receiveFrom(t, server)
		if again != first {
			t.Errorf("the server saw %s, after its restart %s", first, again)
		}
		if string(msg) == "2" {
			break
		}
	}
}

// TestUDPMuteFlowIsLookedUp: the server gets what is sent, and its replies are lost.
// One that is silent by its nature is asked no more often, and gets nothing twice.
func TestUDPMuteFlowIsLookedUp(t *testing.T) {
	mute, old := udpServer(t, "127.0.0.1:0")
	var g guide
	g.set(Route{Target: old})
	p := forwardUDP(t, g.config())
	c := dialPort(t, p, "")
	send(t, c, "1")
	receiveFrom(t, mute)
	pass(p, staleAfter)
	send(t, c, "2")
	eventually(t, p, "looked", func(api.PortDetails) bool { return g.looks.Load() == 1 })
	settle(t, p)
	if asked := g.asked.Load(); !asked.Mute || asked.Answered {
		t.Errorf("asked about %+v", asked)
	}
	if got := receive(t, mute); string(got) != "2" {
		t.Errorf("got %q", got)
	}
	server, addr := udpServer(t, "127.0.0.1:0")
	g.set(Route{Target: addr})
	pass(p, staleAfter)
	send(t, c, "3")
	for _, s := range []*net.UDPConn{mute, server} { // it was sent before the look
		if got := receive(t, s); string(got) != "3" {
			t.Errorf("got %q", got)
		}
	}
}

// TestUDPAnsweredFlowIsNotLookedUp: traffic both ways costs no look, however long it
// goes on.
func TestUDPAnsweredFlowIsNotLookedUp(t *testing.T) {
	var g guide
	g.set(Route{Target: echoServer(t, "127.0.0.1:0")})
	p := forwardUDP(t, g.config())
	c := dialPort(t, p, "")
	begin := time.Now()
	for range 20 {
		exchange(t, c, "x")
		pass(p, staleAfter/2)
	}
	stalls := time.Since(begin) / (staleAfter / 2) // of a busy machine, at most
	settle(t, p)
	n := g.looks.Load()
	if int64(n) > int64(stalls) {
		t.Errorf("%d looks", n)
	}
	pass(p, time.Minute) // a client that was away
	exchange(t, c, "x")
	eventually(t, p, "looked", func(api.PortDetails) bool { return g.looks.Load() == n+1 })
	if asked := g.asked.Load(); asked.Mute || !asked.Answered {
		t.Errorf("asked about %+v", asked)
	}
}

// TestUDPGuessedFlowMoves: a guess that a server answers is still one; the flow takes
// the right way once that is known, while the server answers, and nothing is sent twice.
func TestUDPGuessedFlowMoves(t *testing.T) {
	guessed, guess := udpServer(t, "127.0.0.1:0")
	right, addr := udpServer(t, "127.0.0.1:0")
	var route atomic.Pointer[Route]
	route.Store(&Route{Target: guess, Unserved: true})
	answer := func(_, _ netip.AddrPort) Route { return *route.Load() }
	p := forwardUDP(t, UDPConfig{
		Router: lookingRoutes{routes{route: func(_, _ netip.AddrPort) Route { return Route{} }, resolve: answer},
			func(flows []Doubt) []Route { return slices.Repeat([]Route{*route.Load()}, len(flows)) }},
	})
	c := dialPort(t, p, "")
	echo := func(server *net.UDPConn) {
		buf := make([]byte, 100)
		for {
			n, from, err := server.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = server.WriteToUDPAddrPort(append([]byte(server.LocalAddr().String()+" "), buf[:n]...), from)
		}
	}
	for _, server := range []*net.UDPConn{guessed, right} {
		go echo(server)
	}
	exchange := func(message string) string {
		send(t, c, message)
		server, text, _ := strings.Cut(string(receive(t, c)), " ")
		if text != message {
			t.Fatalf("the answer to %q is %q", message, text)
		}
		return server
	}
	for i := range 3 {
		if got := exchange(fmt.Sprint("guess ", i)); got != guess.String() {
			t.Errorf("served by %s", got)
		}
	}
	route.Store(&Route{Target: addr})
	n := 0
	eventually(t, p, "moved", func(api.PortDetails) bool {
		n++
		return exchange(fmt.Sprint("moved ", n)) == addr.String()
	})
}

// TestUDPGuessIsRefused: the first datagram gets to the server that is elsewhere, and
// nothing is sent in circles where nobody is.
func TestUDPGuessIsRefused(t *testing.T) {
	nobody, neither := unused(t, "127.0.0.1"), unused(t, "127.0.0.2")
	server, addr := udpServer(t, "127.0.0.1:0")
	for _, c := range []struct {
		what  string
		other netip.AddrPort
	}{{"elsewhere", addr}, {"nowhere", neither}} {
		t.Run(c.what, func(t *testing.T) {
			var looks atomic.Int32
			p := forwardUDP(t, UDPConfig{Router: lookingRoutes{routes{route: func(_, _ netip.AddrPort) Route {
				return Route{Target: nobody, Guess: true}
			}}, func(flows []Doubt) []Route {
				looks.Add(1)
				if !flows[0].Lost {
					t.Errorf("the doubt is %+v", flows[0])
				}
				return []Route{{Target: c.other, Guess: true}}
			}}})
			client := dialPort(t, p, "")
			send(t, client, "1")
			if c.what == "elsewhere" {
				if got := receive(t, server); string(got) != "1" {
					t.Errorf("got %q", got)
				}
			}
			eventually(t, p, "settled", func(api.PortDetails) (settled bool) {
				p.loop.mail.Call(func() {
					f := p.flows.byUse.front
					settled = f != nil && f.route.Target == c.other && !f.inDoubt && (f.lost && f.held == nil || c.what == "elsewhere")
				})
				return settled
			})
			if n := looks.Load(); n != 1 {
				t.Errorf("%d looks", n)
			}
		})
	}
}

// TestUDPCloseDuringALook.
func TestUDPCloseDuringALook(t *testing.T) {
	addr := unused(t, "127.0.0.1")
	looking, answer := make(chan struct{}), make(chan struct{})
	p := forwardUDP(t, UDPConfig{Router: lookingRoutes{routes{route: routeTo(addr)}, func(flows []Doubt) []Route {
		close(looking)
		<-answer
		return []Route{{Target: addr}}
	}}})
	c := dialPort(t, p, "")
	send(t, c, "1")
	eventually(t, p, "refused", func(d api.PortDetails) bool { return d.Refused == 1 })
	send(t, c, "2")
	<-looking
	_ = p.Close()
	close(answer)
	p.loop.mail.Call(func() {}) // after the answer, or before; both must do
	if p.waiting.bytes != 0 {
		t.Errorf("still held: %+v", p.waiting)
	}
}
