package main

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

// outboundFigures are loads from inside the namespace to another host (lan.go).
func outboundFigures() []Figure {
	timed := []Metric{rate("/s"), cost("p50", "µs"), cost("p99", "µs")}
	lossy := append(timed[:3:3], loss("lost", "%"))
	gbits := rate("Gbit/s")
	return []Figure{
		toLAN("lan-conns-1", "outbound", "to another host: connections a second, 1 worker", Load{Kind: connections, Clients: 1}, timed...),
		toLAN("lan-conns-8", "outbound", "to another host: connections a second, 8 workers", Load{Kind: connections, Clients: 8}, timed...),
		toLAN("lan-rr-1", "outbound", "to another host: requests a second, 1 connection", Load{Kind: requests, Clients: 1}, timed...),
		toLAN("lan-rr-8", "outbound", "to another host: requests a second, 8 connections", Load{Kind: requests, Clients: 8}, timed...),
		toLAN("lan-udp-8", "outbound", "to another host: UDP echo, 8 clients", Load{Kind: udpEcho, Clients: 8}, lossy...),
		toLAN("lan-dns-1", "outbound", "to another host: DNS queries, 1 client", Load{Kind: dnsQueries, Clients: 1}, lossy...),
		toLAN("lan-dns-200", "outbound", "to another host: DNS queries, 200 clients", Load{Kind: dnsQueries, Clients: 200}, lossy...),
		toLAN("lan-up-1", "outbound", "to another host: TCP, sending, 1 stream", Load{Kind: upload, Clients: 1}, gbits),
		toLAN("lan-down-1", "outbound", "to another host: TCP, receiving, 1 stream", Load{Kind: download, Clients: 1}, gbits),
	}
}

// toLAN is a figure of a load that goes to another host.
func toLAN(id, group, title string, load Load, metrics ...Metric) Figure {
	return Figure{ID: id, Group: group, Title: title, Metrics: metrics, For: goesOut, LAN: true,
		Sample: lanSampler(load, func(_ *runner, s *session, load Load) (Values, error) { return s.agent.run(load) })}
}

// lanSampler opens a session for a load that goes to another host. A load without a
// duration has that of the options.
func lanSampler(load Load, run func(*runner, *session, Load) (Values, error)) func(context.Context, *runner, Target) (Values, error) {
	return func(ctx context.Context, r *runner, t Target) (Values, error) {
		to := lanAddr()
		if !to.IsValid() {
			return nil, errors.New("this figure takes root, to make the namespace of another host")
		}
		s, err := r.open(ctx, t)
		if err != nil {
			return nil, err
		}
		defer s.close()
		load := load
		load.Addr = to.String()
		if load.Duration == 0 {
			load.Duration = r.opts.duration
		}
		return run(r, s, load)
	}
}

// goesOut says that the target has a network of its own, or has the drivers that
// Docker takes by default.
func goesOut(t Target) bool {
	return hasNetwork(t) || t.Name == "ours-docker" || t.Name == "upstream-docker"
}

const (
	dnsPort       = 53
	dnsHeaderSize = 12
	dnsTimeout    = 2 * time.Second // then the query is lost
)

// runDNS has one query under way per client, each from a socket of its own, as
// resolvers do, to the name server that resolv.conf(5) names.
func runDNS(l Load) (Values, error) {
	server, err := nameServer("/etc/resolv.conf")
	if err != nil {
		return nil, err
	}
	var all []time.Duration
	var lost uint64
	var mu sync.Mutex
	took, err := l.parallel(func(_ int, end time.Time) error {
		times, missing, err := queryLoop(server, end)
		mu.Lock()
		defer mu.Unlock()
		all = append(all, times...)
		lost += missing
		return err
	})
	if err != nil {
		return nil, err
	}
	v := latencies(all, took)
	v["lost"] = percent(lost, uint64(len(all))+lost)
	return v, nil
}

// nameServer is the first one of a file.
func nameServer(path string) (netip.AddrPort, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return netip.AddrPort{}, err
	}
	for line := range strings.Lines(string(content)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "nameserver" {
			a, err := netip.ParseAddr(f[1])
			return netip.AddrPortFrom(a, dnsPort), err
		}
	}
	return netip.AddrPort{}, errors.New(path + " names no name server")
}

func queryLoop(server netip.AddrPort, end time.Time) (times []time.Duration, lost uint64, err error) {
	for id := uint16(1); time.Now().Before(end); id++ {
		start := time.Now()
		switch err := queryOnce(server, id); {
		case err == nil:
			times = append(times, time.Since(start))
		case errors.Is(err, os.ErrDeadlineExceeded):
			lost++
		default:
			return nil, 0, err
		}
	}
	return times, lost, nil
}

// question is "example.com. IN A", behind the header.
const question = "\x07example\x03com\x00\x00\x01\x00\x01"

func queryOnce(server netip.AddrPort, id uint16) error {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(server))
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(dnsTimeout)); err != nil {
		return err
	}
	query := binary.BigEndian.AppendUint16(nil, id)
	query = append(query, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0) // recursion desired, one question
	query = append(query, question...)
	if _, err := c.Write(query); err != nil {
		return err
	}
	answer := make([]byte, 512)
	for {
		n, err := c.Read(answer)
		if err != nil {
			return err
		}
		if n >= dnsHeaderSize && binary.BigEndian.Uint16(answer) == id && answer[2]&0x80 != 0 {
			return nil
		}
	}
}
