package publish

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"rootlesskit/api"
	"rootlesskit/internal/netns"
	"rootlesskit/internal/nstest"
	"rootlesskit/internal/sourceip"
	"rootlesskit/internal/wire"
)

// newOwnTest has ports that lead to a namespace's own addresses.
func newOwnTest(t *testing.T) *remoteTest {
	t.Helper()
	child := nstest.NewChild(t)
	addAddresses(t, child, childIPv4, childIPv6)
	addGateways(t, child, []netip.Addr{netip.MustParseAddr("10.0.2.2"), netip.MustParseAddr("fd00::2")})
	return newRemoteTestIn(t, child, Config{Own: childIPv4.Addr()})
}

// TestRetarget: ports go on with their listeners and connections, wherever the
// namespace's addresses have gone.
func TestRetarget(t *testing.T) {
	r := newOwnTest(t)
	server := r.child.ListenTCP(t, "tcp", "[::]:80")
	number := nstest.FreePort(t)
	address := fmt.Sprintf("127.0.0.1:%d", number)
	port, err := r.ports.Forward(api.PortSpec{Proto: "tcp", ParentIP: "127.0.0.1", ParentPort: number, ChildPort: 80})
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	client, accepted := acceptedBy(t, server, address)
	for i, own := range []string{"10.0.2.100", "10.89.1.5", "fd00::100", "0.0.0.0"} {
		if own == "10.89.1.5" {
			if err := netns.Configure(t.Context(), r.child, netns.LinkRequest{Name: "tap0", Addrs: []netip.Prefix{netip.MustParsePrefix("10.89.1.5/24")}}); err != nil {
				t.Fatal(err)
			}
		}
		r.ports.Retarget(netip.MustParseAddr(own))
		_, accepted := acceptedBy(t, server, address)
		if ip := peerOf(accepted); ip.IsLoopback() {
			t.Errorf("after %s a client of the host's loopback appears as %s", own, ip)
		} else if own == "10.89.1.5" && ip.String() != own {
			t.Errorf("the client appears as %s, want %s", ip, own)
		}
		message := fmt.Sprintf("still here, %d", i)
		fmt.Fprint(client, message)
	}
	want := "still here, 0still here, 1still here, 2still here, 3"
	buf := make([]byte, len(want))
	_ = accepted.SetReadDeadline(time.Now().Add(time.Minute))
	for n := 0; n < len(buf); {
		m, err := accepted.Read(buf[n:])
		if err != nil {
			t.Fatalf("the connection from before: %q, %v", buf[:n], err)
		}
		n += m
	}
	if string(buf) != want {
		t.Errorf("got %q", buf)
	}
}

// acceptedBy is a connection to an address, and the server's end of it.
func acceptedBy(t *testing.T, server *net.TCPListener, address string) (client, accepted net.Conn) {
	t.Helper()
	_ = server.SetDeadline(time.Now().Add(time.Minute))
	client, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	accepted, err = server.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accepted.Close() })
	return client, accepted
}

func peerOf(c net.Conn) netip.Addr {
	return c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
}

// TestCallerInThisProcess: a namespace that this process may enter needs no other one.
func TestCallerInThisProcess(t *testing.T) {
	ns := netns.Own()
	handlers := ns.Handlers()
	for name, h := range sourceip.Handlers(t.Context(), ns) {
		handlers[name] = h
	}
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	ports := Open(t.Context(), wire.Local{Handlers: handlers}, Config{})
	defer ports.Close()
	spec := api.PortSpec{Proto: "tcp", ParentIP: "127.0.0.1", ParentPort: nstest.FreePort(t), ChildPort: server.Addr().(*net.TCPAddr).Port}
	if _, err := ports.Forward(spec); err != nil {
		t.Fatal(err)
	}
	if _, err := ports.Forward(spec); err == nil {
		t.Error("the port could be published twice")
	}
}
