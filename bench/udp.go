package main

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"time"
)

const (
	floodRate    = 60_000 // datagrams a second
	floodSize    = 1200   // bytes
	floodTick    = time.Millisecond
	replyTimeout = 100 * time.Millisecond // then the datagram is lost
)

func udpFigures() []Figure {
	echo := []Metric{rate("/s"), cost("p50", "µs"), cost("p99", "µs"), loss("lost", "%")}
	flood := []Metric{{Name: "received", Unit: "/s"}, loss("lost", "%"), {Name: "sent", Unit: "/s", Plain: true}}
	return []Figure{
		inward("udp-echo-4", "udp", "UDP echo, 4 clients", Load{Kind: udpEcho, Clients: 4}, echo...),
		inward("udp-echo-8", "udp", "UDP echo, 8 clients", Load{Kind: udpEcho, Clients: 8}, echo...),
		inward("udp-flood", "udp", "UDP to the namespace, 60,000 datagrams of 1200 bytes a second", Load{Kind: udpFlood, Clients: 1}, flood...),
		outward("out-udp-echo-4", "outbound UDP echo, 4 clients", Load{Kind: udpEcho, Clients: 4}, echo...),
	}
}

// runUDPEcho has one datagram under way per client.
func runUDPEcho(l Load) (Values, error) {
	times := make([][]time.Duration, l.Clients)
	var lost atomic.Uint64
	took, err := l.each(func(i int, c net.Conn, end time.Time) error {
		n := uint64(0)
		var err error
		times[i], n, err = udpEchoLoop(c, end)
		lost.Add(n)
		return err
	})
	if err != nil {
		return nil, err
	}
	all := slices.Concat(times...)
	v := latencies(all, took)
	v["lost"] = percent(lost.Load(), uint64(len(all))+lost.Load())
	return v, nil
}

func udpEchoLoop(c net.Conn, end time.Time) (times []time.Duration, lost uint64, err error) {
	msg, reply := message(opEcho), make([]byte, messageSize)
	for sequence := uint64(1); time.Now().Before(end); sequence++ {
		binary.BigEndian.PutUint64(msg[1:], sequence)
		start := time.Now()
		switch ok, err := udpExchange(c, msg, reply, start.Add(replyTimeout)); {
		case err != nil:
			return nil, 0, err
		case ok:
			times = append(times, time.Since(start))
		default:
			lost++
		}
	}
	return times, lost, nil
}

// udpExchange returns whether the reply came in time. Late ones of earlier
// datagrams are passed over.
func udpExchange(c net.Conn, msg, reply []byte, deadline time.Time) (bool, error) {
	if err := c.SetReadDeadline(deadline); err != nil {
		return false, err
	}
	if _, err := c.Write(msg); err != nil {
		return false, err
	}
	for {
		_, err := c.Read(reply)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if [9]byte(reply) == [9]byte(msg) {
			return true, nil
		}
	}
}

// runUDPFlood sends at a fixed rate, whatever is lost, and asks the server at
// the end how much it has got.
func runUDPFlood(l Load) (Values, error) {
	var sent, got uint64
	_, err := l.each(func(_ int, c net.Conn, end time.Time) (err error) {
		if sent, err = flood(c, end, l.Duration); err == nil {
			got, err = settledCount(c)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return Values{
		"received": perSecond(got, l.Duration),
		"sent":     perSecond(sent, l.Duration),
		"lost":     percent(sent-min(got, sent), sent),
	}, nil
}

// flood sends, each tick, what is due by then.
func flood(c net.Conn, end time.Time, d time.Duration) (sent uint64, err error) {
	msg := make([]byte, floodSize)
	msg[0] = opCount
	start := end.Add(-d)
	for now := time.Now(); now.Before(end); now = time.Now() {
		for due := uint64(now.Sub(start).Seconds() * floodRate); sent < due; sent++ {
			if _, err := c.Write(msg); err != nil {
				return sent, err
			}
		}
		time.Sleep(floodTick)
	}
	return sent, nil
}

// settledCount asks for the server's count until it stands still, which is
// when the queues on the way are empty.
func settledCount(c net.Conn) (uint64, error) {
	count, known := uint64(0), false
	reply := make([]byte, messageSize)
	for end := time.Now().Add(grace); time.Now().Before(end); time.Sleep(replyTimeout / 2) {
		if _, err := c.Write(message(opCounted)); err != nil {
			return 0, err
		}
		if err := c.SetReadDeadline(time.Now().Add(replyTimeout)); err != nil {
			return 0, err
		}
		n, err := c.Read(reply)
		if err != nil || n != 8 {
			continue
		}
		latest := binary.BigEndian.Uint64(reply)
		if known && latest == count {
			return count, nil
		}
		count, known = latest, true
	}
	return 0, errors.New("the server's count of datagrams did not settle")
}

func percent(part, whole uint64) float64 {
	if whole == 0 {
		return 0
	}
	return 100 * float64(part) / float64(whole)
}
