package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"
)

func connectionFigures() []Figure {
	return []Figure{
		inward("conns-8", "conns", "connections a second, 8 workers", Load{Kind: connections, Clients: 8}, rate("/s"), loss("failed", "/s")),
		outward("out-conns-8", "outbound connections a second, 8 workers", Load{Kind: connections, Clients: 8}, rate("/s"), loss("failed", "/s")),
	}
}

// runConnections makes fresh connections as fast as it can: connect, one
// request, its reply, and the end of file. The server closes first, so it has
// the TIME_WAIT and the client's ports can be used again at once.
func runConnections(l Load) (Values, error) {
	times := make([][]time.Duration, l.Clients)
	var failed atomic.Uint64
	var lastErr atomic.Value
	took, _ := l.parallel(func(i int, end time.Time) error {
		for start := time.Now(); start.Before(end); start = time.Now() {
			if err := l.oneConnection(); err != nil {
				failed.Add(1)
				lastErr.Store(fmt.Errorf("a connection failed: %w", err))
				continue
			}
			times[i] = append(times[i], time.Since(start))
		}
		return nil
	})
	all := slices.Concat(times...)
	if len(all) == 0 {
		return nil, lastErr.Load().(error)
	}
	v := latencies(all, took)
	v["failed"] = perSecond(failed.Load(), took)
	return v, nil
}

func (l Load) oneConnection() error {
	c, err := l.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	reply := make([]byte, messageSize)
	if err := exchange(c, message(opEchoEnd), reply); err != nil {
		return err
	}
	if n, err := c.Read(reply); n > 0 || !errors.Is(err, io.EOF) {
		return fmt.Errorf("after the reply: %d bytes, %w, in place of the end of file", n, err)
	}
	return nil
}

func perSecond(n uint64, took time.Duration) float64 { return float64(n) / took.Seconds() }
