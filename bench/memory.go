package main

import (
	"context"
	"fmt"
	"net"
	"time"
)

const (
	idleConnections = 1000
	settleStep      = 100 * time.Millisecond
	settleTimeout   = 3 * time.Second
)

func memoryFigures() []Figure {
	return []Figure{{
		ID: "memory", Group: "memory", Title: "resident memory", For: launched,
		Metrics: []Metric{
			cost("launcher", "MiB"), cost("helpers", "MiB"), cost("total", "MiB"),
			cost("peak", "MiB"), cost("per idle connection", "KiB"),
		},
		Sample: sampleMemory,
	}}
}

// sampleMemory looks at an idle launcher with one published port, and again
// while 1,000 idle connections are open through it. The helpers' part of a
// connection counts too.
func sampleMemory(ctx context.Context, r *runner, t Target) (Values, error) {
	s, err := r.open(ctx, t)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if err := waitServing(ctx, false, s.addr(), startTimeout); err != nil {
		return nil, err
	}
	launcher, helpers := s.processes(r.tools)
	own, err := settledPSS(launcher)
	if err != nil {
		return nil, err
	}
	others, err := settledPSS(helpers)
	if err != nil {
		return nil, err
	}
	peak, err := peakRSS(launcher)
	if err != nil {
		return nil, err
	}
	loaded, err := pssWithConnections(s.addr(), append(launcher, helpers...))
	if err != nil {
		return nil, err
	}
	return Values{
		"launcher": mib(own), "helpers": mib(others), "total": mib(own + others), "peak": mib(peak),
		"per idle connection": (float64(loaded) - float64(own+others)) / idleConnections,
	}, nil
}

func mib(kib uint64) float64 { return float64(kib) / 1024 }

func pssWithConnections(addr string, pids []int) (uint64, error) {
	conns := make([]net.Conn, 0, idleConnections)
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	reply := make([]byte, messageSize)
	for i := range idleConnections {
		c, err := net.DialTimeout("tcp4", addr, grace)
		if err != nil {
			return 0, fmt.Errorf("idle connection %d: %w", i+1, err)
		}
		conns = append(conns, c)
		if err := c.SetDeadline(time.Now().Add(grace)); err != nil {
			return 0, err
		}
		if err := exchange(c, message(opEcho), reply); err != nil {
			return 0, fmt.Errorf("idle connection %d: %w", i+1, err)
		}
	}
	return settledPSS(pids)
}

// settledPSS reads until two values in a row are within 1 percent.
func settledPSS(pids []int) (uint64, error) {
	last, err := pss(pids)
	for end := time.Now().Add(settleTimeout); err == nil && time.Now().Before(end); {
		time.Sleep(settleStep)
		var now uint64
		if now, err = pss(pids); max(now, last)-min(now, last) <= now/100 {
			return now, err
		}
		last = now
	}
	return last, err
}
