package main

import (
	"net"
	"slices"
	"time"
)

func requestFigures() []Figure {
	metrics := []Metric{rate("/s"), cost("p50", "µs"), cost("p99", "µs")}
	return []Figure{
		inward("rr-1", "rr", "requests a second, 1 connection", Load{Kind: requests, Clients: 1}, metrics...),
		inward("rr-32", "rr", "requests a second, 32 connections", Load{Kind: requests, Clients: 32}, metrics...),
		outward("out-rr-1", "outbound requests a second, 1 connection", Load{Kind: requests, Clients: 1}, metrics...),
	}
}

// runRequests sends a small request and waits for its reply, over and over on
// connections that stay open.
func runRequests(l Load) (Values, error) {
	times := make([][]time.Duration, l.Clients)
	took, err := l.each(func(i int, c net.Conn, end time.Time) (err error) {
		times[i], err = requestLoop(c, end)
		return err
	})
	if err != nil {
		return nil, err
	}
	return latencies(slices.Concat(times...), took), nil
}

func requestLoop(c net.Conn, end time.Time) ([]time.Duration, error) {
	var times []time.Duration
	request, reply := message(opEcho), make([]byte, messageSize)
	for start := time.Now(); start.Before(end); {
		if err := exchange(c, request, reply); err != nil {
			return nil, err
		}
		now := time.Now()
		times = append(times, now.Sub(start))
		start = now
	}
	return times, nil
}

// latencies sums the times of single exchanges up.
func latencies(times []time.Duration, took time.Duration) Values {
	slices.Sort(times)
	return Values{
		"rate": perSecond(uint64(len(times)), took),
		"p50":  microseconds(percentile(times, 50)),
		"p99":  microseconds(percentile(times, 99)),
	}
}

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
