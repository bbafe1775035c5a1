package drivertest

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"rootlesskit/api"
)

// tcp is what a driver promises of the connections of one protocol.
func (s *suite) tcp(t *testing.T, at endpoint) {
	run(t, "Echo", true, at.testEcho)
	run(t, "HalfCloseByClient", s.can(HalfClose), at.testHalfCloseByClient)
	run(t, "HalfCloseByServer", s.can(HalfClose), at.testHalfCloseByServer)
	run(t, "ResetByClient", s.can(Reset), at.testResetByClient)
	run(t, "ResetByServer", s.can(Reset), at.testResetByServer)
	run(t, "RefusedIsReset", s.can(Refuse), at.testRefused)
	run(t, "SlowReader", true, at.testSlowReader)
	run(t, "Bulk", s.can(HalfClose), at.testBulk)
	run(t, "ManyClients", true, at.testManyClients)
	run(t, "RemoveCuts", s.can(Cut), at.testRemoveCuts)
	run(t, "AddAgainAtOnce", true, at.testAddAgain)
	run(t, "InUse", true, at.testInUse)
}

func (e endpoint) testEcho(t *testing.T) {
	port := e.publish(t, e.serveTCP(t, echo))
	const message = "there and back"
	exchange(t, port.dial(t), message)
	port.expectDetails(t, "one echo", func(d api.PortDetails) bool {
		return d.Accepted == 1 && d.Active == 1 && d.Refused == 0 && d.BytesIn == uint64(len(message)) && d.BytesOut == d.BytesIn
	})
}

func (e endpoint) testHalfCloseByClient(t *testing.T) {
	client, server := e.connect(t)
	sendAndEnd(t, client, "question")
	expectMessageAndEnd(t, server, "question")
	sendAndEnd(t, server, "answer")
	expectMessageAndEnd(t, client, "answer")
}

func (e endpoint) testHalfCloseByServer(t *testing.T) {
	client, server := e.connect(t)
	sendAndEnd(t, server, "banner")
	expectMessageAndEnd(t, client, "banner")
	sendAndEnd(t, client, "reaction")
	expectMessageAndEnd(t, server, "reaction")
}

func (e endpoint) testResetByClient(t *testing.T) {
	client, server := e.connect(t)
	reset(client)
	expectReset(t, server)
}

func (e endpoint) testResetByServer(t *testing.T) {
	client, server := e.connect(t)
	reset(server)
	expectReset(t, client)
}

// testRefused has no server in the namespace. The reset comes at once: with a timer
// behind it, no try would be fast, and without one, some try is on any machine.
func (e endpoint) testRefused(t *testing.T) {
	const soon = 100 * time.Millisecond
	port := e.publish(t, e.nextPort())
	fastest, tries := patience, uint64(0)
	for deadline := time.Now().Add(patience); tries < 5 || fastest > soon && time.Now().Before(deadline); tries++ {
		start := time.Now()
		client, err := net.DialTimeout("tcp", port.address(), patience)
		if err == nil {
			expectReset(t, guard(t, client))
		} else if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ECONNRESET) {
			t.Fatal(err)
		}
		fastest = min(fastest, time.Since(start))
	}
	if fastest > soon {
		t.Errorf("the client learns of it after %v at best", fastest)
	}
	port.expectDetails(t, fmt.Sprintf("%d refused connections", tries), func(d api.PortDetails) bool {
		return d.Refused == tries && d.Active == 0 && d.LastError != ""
	})
}

// testSlowReader has a server that does not read until the client cannot send
// any more.
func (e endpoint) testSlowReader(t *testing.T) {
	client, server := e.connect(t)
	block := make([]byte, 1<<20)
	var sent int64
	for blocked := false; !blocked; {
		_ = client.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		n, err := client.Write(block)
		sent += int64(n)
		blocked = errors.Is(err, os.ErrDeadlineExceeded)
		if err != nil && !blocked {
			t.Fatal(err)
		}
		if sent > 1<<30 {
			t.Fatal("the client can send without end to a server that does not read")
		}
	}
	if _, err := io.CopyN(io.Discard, server, sent); err != nil {
		t.Fatalf("reading %d bytes: %v", sent, err)
	}
	_ = client.SetWriteDeadline(time.Now().Add(patience))
	if _, err := client.Write(block); err != nil {
		t.Errorf("after the server has read: %v", err)
	}
	if _, err := io.CopyN(io.Discard, server, int64(len(block))); err != nil {
		t.Error(err)
	}
}

// testBulk moves 100 MiB each way at a time, on one connection where the driver
// can.
func (e endpoint) testBulk(t *testing.T) {
	const size = 100 << 20
	client, server := e.connect(t)
	var wg sync.WaitGroup
	defer wg.Wait()
	transfer := func(from, to *net.TCPConn) {
		for _, c := range []*net.TCPConn{from, to} {
			_ = c.SetDeadline(time.Now().Add(10 * patience))
		}
		sent := make(chan uint32, 1)
		wg.Go(func() { sent <- sendStream(t, from, size) })
		wg.Go(func() {
			n, sum := receiveStream(t, to)
			if want := <-sent; n != size || sum != want {
				t.Errorf("%d bytes with sum %#x came of %d with %#x", n, sum, size, want)
			}
		})
	}
	transfer(client, server)
	if !e.can(CrossingEnds) {
		client, server = e.connect(t)
	}
	transfer(server, client)
}

// sendStream sends random bytes and ends the stream.
func sendStream(t testing.TB, conn *net.TCPConn, size int) uint32 {
	block := make([]byte, 1<<20+7) // no multiple of any buffer
	fill(block, rand.NewChaCha8([32]byte{byte(size)}))
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	for size > 0 {
		b := block[:min(size, len(block))]
		sum.Write(b)
		if _, err := conn.Write(b); err != nil {
			t.Errorf("sending: %v", err)
			return 0
		}
		size -= len(b)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Errorf("ending a stream: %v", err)
	}
	return sum.Sum32()
}

func receiveStream(t testing.TB, conn *net.TCPConn) (size int, sum uint32) {
	h := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	buf := make([]byte, 256<<10)
	for {
		n, err := conn.Read(buf)
		h.Write(buf[:n])
		size += n
		if err == io.EOF {
			return size, h.Sum32()
		}
		if err != nil {
			t.Errorf("receiving after %d bytes: %v", size, err)
			return size, 0
		}
	}
}

func fill(b []byte, r *rand.ChaCha8) { _, _ = r.Read(b) }

// testManyClients has 200 clients at a time, each with bytes of its own.
func (e endpoint) testManyClients(t *testing.T) {
	port := e.publish(t, e.serveTCP(t, echo))
	clients := 200
	if !e.can(Burst) {
		clients = 10
	}
	var wg sync.WaitGroup
	for i := range clients {
		client := port.dial(t)
		wg.Go(func() {
			if err := echoBytes(client, i); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	wg.Wait()
}

func echoBytes(conn *net.TCPConn, seed int) error {
	sent, got := make([]byte, 64<<10), make([]byte, 64<<10)
	fill(sent, rand.NewChaCha8([32]byte{byte(seed), 1}))
	go func() { _, _ = conn.Write(sent) }() // its failure is seen by the read
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if string(got) != string(sent) {
		return errors.New("other bytes came back")
	}
	return nil
}

// testRemoveCuts removes a port under connections: once it is removed, they
// are cut and clients are refused.
func (e endpoint) testRemoveCuts(t *testing.T) {
	l := e.listenTCP(t)
	port := e.publish(t, l.port)
	var ends []*net.TCPConn
	for range 10 {
		client := port.dial(t)
		ends = append(ends, client, l.accept(t))
	}
	port.close(t)
	for _, conn := range ends {
		expectEnd(t, conn)
	}
	port.expectRefused(t)
	port.expectDetails(t, "a removed port", func(d api.PortDetails) bool { return d.Active == 0 })
}

// testAddAgain removes a port with a connection and adds it at once.
func (e endpoint) testAddAgain(t *testing.T) {
	childPort := e.serveTCP(t, echo)
	port := e.publish(t, childPort)
	for i := range 20 {
		exchange(t, port.dial(t), fmt.Sprint("round ", i))
		port.close(t)
		port = e.forward(t, port.spec)
	}
	exchange(t, port.dial(t), "the last")
}

func (e endpoint) testInUse(t *testing.T) {
	port := e.publish(t, e.nextPort())
	want := fmt.Sprintf("listen %s %s: bind: address already in use", e.proto, port.address())
	e.expectError(t, port.spec, want)
}
