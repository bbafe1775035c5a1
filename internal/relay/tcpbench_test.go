package relay

import (
	"io"
	"net"
	"testing"
	"time"
)

// eachWay runs a benchmark on the server itself and through the relay.
func eachWay(b *testing.B, server func(*net.TCPConn), run func(b *testing.B, addr string)) {
	target := serve(b, server)
	_, addr := forward(b, target)
	b.Run("direct", func(b *testing.B) { run(b, target) })
	b.Run("relay", func(b *testing.B) { run(b, addr) })
}

func discard(c *net.TCPConn) {
	_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 128<<10))
}

func BenchmarkStream(b *testing.B) {
	eachWay(b, discard, func(b *testing.B, addr string) {
		c := dial(b, addr)
		_ = c.SetDeadline(time.Time{})
		buf := make([]byte, 128<<10)
		b.SetBytes(int64(len(buf)))
		for b.Loop() {
			if _, err := c.Write(buf); err != nil {
				b.Fatal(err)
			}
		}
		_ = c.CloseWrite()
		_, _ = c.Read(buf) // the server has got all
	})
}

func BenchmarkRequests(b *testing.B) {
	eachWay(b, echo, func(b *testing.B, addr string) {
		c := dial(b, addr)
		_ = c.SetDeadline(time.Time{})
		buf := make([]byte, 64)
		for b.Loop() {
			_, _ = c.Write(buf)
			if _, err := io.ReadFull(c, buf); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkParallelRequests(b *testing.B) {
	eachWay(b, echo, func(b *testing.B, addr string) {
		b.SetParallelism(16)
		b.RunParallel(func(pb *testing.PB) {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				b.Error(err)
				return
			}
			defer c.Close()
			buf := make([]byte, 64)
			for pb.Next() {
				_, _ = c.Write(buf)
				if _, err := io.ReadFull(c, buf); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}

// The server closes first, so that it has the TIME_WAIT.
func BenchmarkConnections(b *testing.B) {
	server := func(c *net.TCPConn) {
		buf := make([]byte, 64)
		if _, err := io.ReadFull(c, buf); err == nil {
			_, _ = c.Write(buf)
		}
	}
	eachWay(b, server, func(b *testing.B, addr string) {
		b.SetParallelism(4)
		b.RunParallel(func(pb *testing.PB) {
			buf := make([]byte, 64)
			for pb.Next() {
				c, err := net.Dial("tcp", addr)
				if err != nil {
					b.Error(err)
					return
				}
				_, _ = c.Write(buf)
				_, _ = io.ReadFull(c, buf)
				if _, err := c.Read(buf); err != io.EOF {
					b.Errorf("after the reply: %v", err)
				}
				c.Close()
			}
		})
	})
}
