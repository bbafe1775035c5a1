package relay

import (
	"io"
	"net"
	"slices"
	"testing"
	"time"
)

// delayed is a proxy to a server that is as far away as the delay says, each way.
// It keeps the pieces that were sent, and their distances.
func delayed(t *testing.T, target string, delay time.Duration) string {
	return serve(t, func(c *net.TCPConn) {
		server, err := net.Dial("tcp", target)
		if err != nil {
			c.Close()
			return
		}
		back := make(chan struct{})
		go func() {
			defer close(back)
			carry(server.(*net.TCPConn), c, delay)
		}()
		carry(c, server.(*net.TCPConn), delay)
		<-back
		server.Close()
	})
}

// carry moves pieces, each of them late, until the source ends.
func carry(from, to *net.TCPConn, delay time.Duration) {
	type piece struct {
		b   []byte
		due time.Time
	}
	pieces := make(chan piece, 10000)
	go func() {
		defer close(pieces)
		for {
			b := make([]byte, 16<<10)
			n, err := from.Read(b)
			if err != nil {
				return
			}
			pieces <- piece{b[:n], time.Now().Add(delay)}
		}
	}()
	for p := range pieces {
		time.Sleep(time.Until(p.due))
		if _, err := to.Write(p.b); err != nil {
			to.Close()
			return
		}
	}
	_ = to.CloseWrite()
}

// TestSmallWritesDoNotStall has a client that writes a byte, and then another
// before it waits for both answers: what Nagle's algorithm and delayed
// acknowledgements make 40 to 200 ms of, wherever one of the four sockets lets
// them. The way beyond the relay is short, or long.
func TestSmallWritesDoNotStall(t *testing.T) {
	const stall = 35 * time.Millisecond
	for _, delay := range []time.Duration{0, 200 * time.Millisecond} {
		server := serve(t, echo)
		if delay > 0 {
			server = delayed(t, server, delay)
		}
		_, addr := forward(t, server)
		var extra time.Duration
		for range 10 { // a busy machine stalls now and then, the algorithm always
			if extra = bestPingPong(t, addr) - bestPingPong(t, server); extra <= stall {
				break
			}
		}
		if extra > stall {
			t.Errorf("%v away, two bytes and their answers take %v longer through the relay", delay, extra)
		}
	}
}

// bestPingPong is the shortest of some times that two bytes and their answers take.
func bestPingPong(t *testing.T, to string) time.Duration {
	t.Helper()
	c := dial(t, to)
	defer c.Close()
	pingPong(t, c) // the connection is made
	best := time.Hour
	for range 5 {
		start := time.Now()
		pingPong(t, c)
		best = min(best, time.Since(start))
	}
	return best
}

func pingPong(t *testing.T, c *net.TCPConn) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	for range 2 {
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.ReadFull(c, make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
}

// TestBulkOverALongWay moves more than the buffers between hold while the way is
// long, and ends when all is there.
func TestBulkOverALongWay(t *testing.T) {
	_, addr := forward(t, delayed(t, serve(t, echo), 200*time.Millisecond))
	c := dial(t, addr)
	_ = c.SetDeadline(time.Now().Add(3 * time.Minute))
	const size = 32 << 20
	go func() {
		_, _ = c.Write(make([]byte, size))
		_ = c.CloseWrite()
	}()
	if n, err := io.Copy(io.Discard, c); n != size || err != nil {
		t.Errorf("%d of %d bytes came back: %v", n, size, err)
	}
}

func TestSmallMessagesAreNotDelayed(t *testing.T) {
	_, addr := forward(t, serve(t, echo))
	c := dial(t, addr)
	p99 := time.Hour
	for range 10 { // on a busy machine, one that nothing else disturbs
		if p99 = min(p99, slowestOf(t, c, 500)); p99 <= 30*time.Millisecond {
			return
		}
	}
	t.Errorf("99%% of the exchanges took up to %v", p99)
}

// slowestOf returns what 99 % of n exchanges took at most.
func slowestOf(t *testing.T, c net.Conn, n int) time.Duration {
	t.Helper()
	var times []time.Duration
	for range n {
		start := time.Now()
		// Two small writes in a row are what Nagle's algorithm and delayed
		// acknowledgements hold back, by 40 to 200 ms.
		_, _ = io.WriteString(c, "a")
		_, _ = io.WriteString(c, "b")
		if _, err := io.ReadFull(c, make([]byte, 2)); err != nil {
			t.Fatal(err)
		}
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	return times[len(times)*99/100]
}
