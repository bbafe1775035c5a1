package drivertest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"rootlesskit/api"
)

// maxDatagram is the largest payload of UDP over IPv4: 65,535 less the headers.
const maxDatagram = 65507

// udp is what a driver promises of the datagrams of one protocol.
func (s *suite) udp(t *testing.T, at endpoint) {
	run(t, "Echo", true, at.testDatagrams)
	run(t, "BigDatagram", s.can(BigDatagram), at.testBigDatagram)
	run(t, "TooBigDatagram", true, at.testTooBigDatagram)
	run(t, "ServerSpeaksLater", true, at.testServerSpeaksLater)
	run(t, "ServerComesLater", true, at.testServerComesLater)
	run(t, "ManyClients", true, at.testManySenders)
	run(t, "Remove", s.can(CutFlows), at.testRemoveUDP)
	run(t, "AddAgainAtOnce", true, at.testAddUDPAgain)
	run(t, "InUse", true, at.testInUse)
}

// dialUDP returns a socket connected to the port, so that replies from
// elsewhere do not arrive.
func (p *published) dialUDP(t testing.TB) *net.UDPConn {
	t.Helper()
	return dialUDP(t, p.address())
}

func dialUDP(t testing.TB, address string) *net.UDPConn {
	t.Helper()
	conn, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	return guard(t, conn.(*net.UDPConn))
}

// listenUDP opens a socket on all addresses of the namespace, or on ip. A
// socket on all addresses answers from its own choice of address, so servers
// of a certain address bind it.
func (s *suite) listenUDP(t testing.TB, ip string, port int) *net.UDPConn {
	t.Helper()
	return guard(t, s.Child.ListenUDP(t, "udp", net.JoinHostPort(ip, strconv.Itoa(port))))
}

// serveUDP echoes until the test ends and returns the server's port.
func (s *suite) serveUDP(t testing.TB) int {
	t.Helper()
	port := s.nextPort()
	echoDatagrams(t, s.listenUDP(t, "", port))
	return port
}

// echoDatagrams has the server send everything back with its prefix.
func echoDatagrams(t testing.TB, server *net.UDPConn) { answerDatagrams(t, server, "") }

func answerDatagrams(t testing.TB, server *net.UDPConn, prefix string) {
	_ = server.SetDeadline(time.Time{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, maxDatagram+1)
		for {
			n, from, err := server.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = server.WriteToUDPAddrPort(append([]byte(prefix), buf[:n]...), from)
			}
		}
	}()
	t.Cleanup(func() {
		server.Close()
		<-ended
	})
}

// ask sends a datagram and checks the answer.
func ask(conn *net.UDPConn, question, answer string) error {
	if _, err := conn.Write([]byte(question)); err != nil {
		return err
	}
	return expectDatagram(conn, answer)
}

func expectDatagram(conn *net.UDPConn, want string) error {
	buf := make([]byte, maxDatagram+1)
	n, err := conn.Read(buf)
	if err != nil {
		return err
	}
	if string(buf[:n]) != want {
		return fmt.Errorf("got %d bytes %.40q, want %d bytes %.40q", n, buf[:n], len(want), want)
	}
	return nil
}

// askUntil repeats a question until it is answered: while a server starts or a
// port is added again, datagrams are lost and refused.
func askUntil(t testing.TB, conn *net.UDPConn, question, answer string) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		_ = conn.SetDeadline(time.Now().Add(50 * time.Millisecond))
		if err = ask(conn, question, answer); err == nil {
			_ = conn.SetDeadline(time.Now().Add(patience))
			return
		}
	}
	t.Fatalf("%q was never answered: %v", question, err)
}

func (e endpoint) testDatagrams(t *testing.T) {
	port := e.publish(t, e.serveUDP(t))
	client := port.dialUDP(t)
	var total uint64
	for _, size := range []int{1, 0, 1472, 1473, 9000, 2} {
		message := string(make([]byte, size))
		if err := ask(client, message, message); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		total += uint64(size)
	}
	port.expectDetails(t, "echoes", func(d api.PortDetails) bool {
		return d.Accepted == 1 && d.Active == 1 && d.Refused == 0 && d.BytesIn == total && d.BytesOut == total
	})
}

func (e endpoint) testBigDatagram(t *testing.T) {
	client := e.publish(t, e.serveUDP(t)).dialUDP(t)
	message := make([]byte, maxDatagram)
	fill(message, rand.NewChaCha8([32]byte{2}))
	for range 10 { // a helper may lose one on a busy machine
		askUntil(t, client, string(message), string(message))
	}
}

// testTooBigDatagram is about the sender's own kernel: nothing of it arrives,
// and the port works on.
func (e endpoint) testTooBigDatagram(t *testing.T) {
	client := e.publish(t, e.serveUDP(t)).dialUDP(t)
	if _, err := client.Write(make([]byte, 65536)); !errors.Is(err, syscall.EMSGSIZE) {
		t.Errorf("sending 65,536 bytes: got %v, want %v", err, syscall.EMSGSIZE)
	}
	if err := ask(client, "small", "small"); err != nil {
		t.Error(err)
	}
}

// testServerSpeaksLater has the server send on its own after the first
// datagram, to each of two clients.
func (e endpoint) testServerSpeaksLater(t *testing.T) {
	port := e.nextPort()
	server := e.listenUDP(t, "", port)
	public := e.publish(t, port)
	var clients [2]*net.UDPConn
	var flows [2]netip.AddrPort
	for i := range clients {
		clients[i] = public.dialUDP(t)
		if _, err := clients[i].Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		_, from, err := server.ReadFromUDPAddrPort(make([]byte, 10))
		if err != nil {
			t.Fatal(err)
		}
		flows[i] = from
	}
	for i := range 3 {
		for j := range clients {
			word := fmt.Sprint("word ", i, " for ", j)
			if _, err := server.WriteToUDPAddrPort([]byte(word), flows[j]); err != nil {
				t.Fatal(err)
			}
			if err := expectDatagram(clients[j], word); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// testServerComesLater has a client whose first datagrams nobody takes.
func (e endpoint) testServerComesLater(t *testing.T) {
	port := e.nextPort()
	client := e.publish(t, port).dialUDP(t)
	for range 3 {
		_, _ = client.Write([]byte("lost"))
	}
	echoDatagrams(t, e.listenUDP(t, "", port))
	askUntil(t, client, "found", "found")
}

// testManySenders has 200 clients at a time. A burst may be more than a socket
// holds, so datagrams may be lost, but never come to somebody else.
func (e endpoint) testManySenders(t *testing.T) {
	port := e.publish(t, e.serveUDP(t))
	var wg sync.WaitGroup
	for i := range 200 {
		client := port.dialUDP(t)
		wg.Go(func() {
			name := fmt.Sprintf("client %d, ", i)
			for j := range 5 {
				if err := insist(client, name, fmt.Sprint("datagram ", j)); err != nil {
					t.Errorf("%sdatagram %d: %v", name, j, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// insist sends name+message to an echo server until it comes back. Late
// answers to what the same client sent before are passed over.
func insist(conn *net.UDPConn, name, message string) error {
	buf := make([]byte, 100)
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if _, err := conn.Write([]byte(name + message)); err != nil {
			return err
		}
		_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		for {
			n, err := conn.Read(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return err
			}
			if got := string(buf[:n]); !strings.HasPrefix(got, name) {
				return fmt.Errorf("got what is not its own: %q", got)
			} else if got == name+message {
				return nil
			}
		}
	}
	return os.ErrDeadlineExceeded
}

// testRemoveUDP sends to a port that was removed: the host's kernel refuses.
func (e endpoint) testRemoveUDP(t *testing.T) {
	port := e.publish(t, e.serveUDP(t))
	client := port.dialUDP(t)
	if err := ask(client, "there", "there"); err != nil {
		t.Fatal(err)
	}
	port.close(t)
	if err := ask(client, "gone", ""); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("sending to a removed port: got %v, want %v", err, syscall.ECONNREFUSED)
	}
}

func (e endpoint) testAddUDPAgain(t *testing.T) {
	childPort := e.serveUDP(t)
	port := e.publish(t, childPort)
	client := port.dialUDP(t)
	for i := range 20 {
		message := fmt.Sprint("round ", i)
		if err := ask(client, message, message); err != nil {
			t.Fatal(err)
		}
		port.close(t)
		port = e.forward(t, port.spec)
	}
}
