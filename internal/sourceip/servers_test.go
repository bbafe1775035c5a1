package sourceip

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"rootlesskit/internal/nstest"
)

var protos = []string{"tcp", "udp"}

// clientFor gives every case a port of its own.
func clientFor(base netip.AddrPort, n int) netip.AddrPort {
	return netip.AddrPortFrom(base.Addr(), base.Port()+uint16(n))
}

func TestServersSeeTheClient(t *testing.T) {
	for _, place := range []string{own, detached} {
		t.Run("place="+place, func(t *testing.T) {
			w := newWorld(t, place)
			for _, proto := range protos {
				for i, c := range []struct {
					listen, target string
					client         netip.AddrPort
				}{
					{"0.0.0.0:1001", "127.0.0.1:1001", client4},
					{"127.0.0.1:1002", "127.0.0.1:1002", client4},
					{"10.0.2.100:1003", "127.0.0.1:1003", client4},
					{"10.0.2.100:1004", "10.0.2.100:1004", client4},
					{"127.0.0.2:1005", "127.0.0.2:1005", client4},
					{"0.0.0.0:1006", "127.0.0.2:1006", client4},
					{"[::]:1007", "127.0.0.1:1007", client4},
					{"[::]:1008", "127.0.0.1:1008", client6},
					{"[::]:1009", "[::1]:1009", client6},
					{"[::1]:1010", "[::1]:1010", client6},
					{"[::1]:1011", "127.0.0.1:1011", client6},
					{"[fd00::100]:1012", "[::1]:1012", client6},
					{"[fd00::100]:1013", "[fd00::100]:1013", client6},
					{"[::ffff:127.0.0.1]:1014", "127.0.0.1:1014", client4},
				} {
					t.Run(proto+" "+c.listen+" for "+c.target+" from "+c.client.Addr().String(), func(t *testing.T) {
						w.serve(t, proto, c.listen)
						w.expectReal(t, proto, w.port(t, proto, c.target), clientFor(c.client, i))
					})
				}
			}
		})
	}
}

// A client of the other family cannot be shown; it reaches the server as the
// namespace.
func TestClientOfTheOtherFamily(t *testing.T) {
	w := newWorld(t, own)
	for _, proto := range protos {
		for listen, want := range map[string]struct {
			client netip.AddrPort
			seen   string
		}{
			"127.0.0.1:1001":   {client6, "10.0.2.100:"},
			"0.0.0.0:1002":     {client6, "10.0.2.100:"},
			"[::1]:1003":       {client4, "[fd00::100]:"},
			"[fd00::100]:1004": {client4, "[fd00::100]:"},
			"10.0.2.100:1005":  {client6, "10.0.2.100:"},
		} {
			w.serve(t, proto, listen)
			_, port, _ := strings.Cut(listen[strings.LastIndex(listen, ":"):], ":")
			p := w.port(t, proto, "127.0.0.1:"+port)
			if got := w.seen(t, proto, p.Resolve(t.Context(), want.client)); !strings.HasPrefix(got, want.seen) {
				t.Errorf("%s %s sees %s, want %s", proto, listen, got, want.seen)
			}
		}
	}
}

// connectedServers are servers that connect a socket to a client, which is one of the same family.
var connectedServers = []struct {
	listen string
	client netip.AddrPort
}{
	{"0.0.0.0:1001", client4},
	{"127.0.0.1:1002", client4},
	{"10.0.2.100:1003", client4},
	{"[::]:1004", client6},
	{"[::1]:1005", client6},
	{"[fd00::100]:1006", client6},
}

// A server may answer from a socket of its own for each client, as those of
// DTLS and OpenVPN do.
func TestConnectedUDPServer(t *testing.T) {
	w := newWorld(t, own)
	for i, c := range connectedServers {
		t.Run(c.listen, func(t *testing.T) {
			server := w.listenUDP(t, c.listen)
			client := clientFor(c.client, i)
			target := netip.AddrPortFrom(loopback4.Addr(), uint16(1001+i))
			if client.Addr().Is6() {
				target = netip.AddrPortFrom(loopback6.Addr(), target.Port())
			}
			route := w.port(t, "udp", target.String()).Resolve(t.Context(), client)
			conn, err := w.dial(t, "udp", route)
			if err != nil {
				t.Fatal(err)
			}
			for _, message := range []string{"hello", "more"} {
				if _, err := conn.Write([]byte(message)); err != nil {
					t.Fatal(err)
				}
				buf := make([]byte, 64)
				n, from, err := server.ReadFrom(buf)
				if err != nil || string(buf[:n]) != message || nstest.Peer(from) != client.String() {
					t.Fatalf("the server got %q from %v, %v; want %q from %v", buf[:n], from, err, message, client)
				}
				if message == "hello" { // from now on it is the new socket that hears
					connected, err := w.dial(t, "udp", Route{Source: route.Target, Target: client})
					if err != nil {
						t.Fatal(err)
					}
					if _, err := connected.Write([]byte("welcome")); err != nil {
						t.Fatal(err)
					}
					server = connected.(net.PacketConn)
				}
			}
			_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
			buf := make([]byte, 64)
			if n, err := conn.Read(buf); string(buf[:n]) != "welcome" {
				t.Errorf("the client got %q, %v", buf[:n], err)
			}
		})
	}
}
