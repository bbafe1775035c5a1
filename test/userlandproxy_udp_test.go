package test

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestUserlandProxyUDPMoves: a client of UDP that goes on sending is answered by the
// container that its port leads to now.
func TestUserlandProxyUDPMoves(t *testing.T) {
	e := startEngine(t, "", "--port-driver=builtin")
	stop := e.proxy(t, "udp", "127.0.0.1", "172.17.0.2:80")
	c, err := e.dial(t, "udp", netip.MustParseAddrPort(client4), netip.MustParseAddrPort(host4+":8080"))
	if err != nil {
		t.Fatal(err)
	}
	if got := e.exchange(c); got != "container 2: "+client4 {
		t.Fatal(got)
	}
	e.patience = time.Second // it asks again and again
	stop()
	e.shellInside(t, "ip link set veth2 down")
	e.proxy(t, "udp", "127.0.0.1", "172.17.0.3:80")
	got := ""
	poll(t, "an answer of the other container", func() bool {
		got = e.exchange(c)
		return got == "container 3: "+client4
	})
}

// TestUserlandProxyServesUDP: a container that cannot answer its clients by their own
// addresses answers them by the proxy.
func TestUserlandProxyServesUDP(t *testing.T) {
	for name, serve := range map[string]string{
		"no route back": "ip route del default",
		"refused":       "nft 'table ip f { chain c { type filter hook input priority 0; ip saddr != 172.17.0.0/16 udp dport 80 reject; }; }'",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := startEngine(t, serve, "--port-driver=builtin")
			e.patience = 500 * time.Millisecond
			e.proxy(t, "udp", "127.0.0.1", "172.17.0.2:80")
			c, err := e.dial(t, "udp", netip.MustParseAddrPort(client4), netip.MustParseAddrPort(host4+":8080"))
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			poll(t, "an answer by the proxy", func() bool {
				got = e.exchange(c)
				return strings.HasPrefix(got, "container 2: ")
			})
			if !strings.HasPrefix(got, "container 2: "+bridge4) {
				t.Errorf("the client is seen as %q", got)
			}
		})
	}
}

// TestUserlandProxyOneWayUDP: a server that answers nobody (a log, say) sees its clients
// all the same.
func TestUserlandProxyOneWayUDP(t *testing.T) {
	e := startEngine(t, `PEER_NAME= python3 "$PEERS" udp-late/0.0.0.0/82 >/dev/null &
		until ss -Hlun sport = :82 | grep -q .; do sleep 0.01; done`, "--port-driver=builtin")
	e.proxy(t, "udp", "127.0.0.1", "172.17.0.3:82")
	c, err := e.dial(t, "udp", netip.MustParseAddrPort(client4), netip.MustParseAddrPort(host4+":8080"))
	if err != nil {
		t.Fatal(err)
	}
	e.patience = 100 * time.Millisecond
	for sent, end := 0, time.Now().Add(4*time.Second); sent < 20 || time.Now().Before(end); sent++ {
		if got := e.exchange(c); strings.HasPrefix(got, neighbour4) {
			t.Fatalf("an answer too soon: %s", got)
		}
	}
	e.shellInside(t, inContainer+"python3 "+testdata(t, "peers.py")+" ask udp 127.0.0.1 127.0.0.1 82")
	e.patience = waitLimit
	for range 10 { // one for each datagram, and all are the same client's
		if got := e.exchange(c); got != client4 {
			t.Fatalf("the client was seen as %q", got)
		}
	}
}
