package main

import (
	"context"
	"fmt"
	"net"
	"time"
)

const (
	// A connection costs what idleConnections more than warmConnections add: the
	// first ones also cost what the program needs for any.
	warmConnections = 100
	idleConnections = 1000
	settleStep      = 100 * time.Millisecond
	settleTimeout   = 3 * time.Second
	// settleFirst is how long a launcher may take to give back what only its
	// start needed.
	settleFirst = 2 * time.Second
)

func memoryFigures() []Figure {
	return []Figure{{
		ID: "memory", Group: "memory", Title: "resident memory", For: launched,
		Metrics: memoryMetrics(),
		Sample:  sampleMemory,
	}}
}

func memoryMetrics() []Metric {
	return []Metric{
		cost("launcher", "MiB"), cost("helpers", "MiB"), cost("total", "MiB"), cost("total, private", "MiB"),
		cost("peak", "MiB"), cost("total with 1,100 idle connections", "MiB"), cost("per idle connection", "KiB"),
	}
}

// sampleMemory looks at an idle launcher with one published port, and again
// while idle connections are open through it. The helpers' part of a connection
// counts too.
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
	time.Sleep(settleFirst)
	own, err := settledPSS(launcher)
	if err != nil {
		return nil, err
	}
	others, err := settledPSS(helpers)
	if err != nil {
		return nil, err
	}
	processes := append(launcher, helpers...)
	private, err := uss(processes)
	if err != nil {
		return nil, err
	}
	peak, err := peakRSS(launcher)
	if err != nil {
		return nil, err
	}
	conns := idleConns{addr: s.addr()}
	defer conns.close()
	warm, err := conns.pssWith(warmConnections, processes)
	if err != nil {
		return nil, err
	}
	loaded, err := conns.pssWith(warmConnections+idleConnections, processes)
	if err != nil {
		return nil, err
	}
	return Values{
		"launcher": mib(own), "helpers": mib(others), "total": mib(own + others), "total, private": mib(private), "peak": mib(peak),
		"total with 1,100 idle connections": mib(loaded),
		"per idle connection":               (float64(loaded) - float64(warm)) / idleConnections,
	}, nil
}

func mib(kib uint64) float64 { return float64(kib) / 1024 }

// idleConns are connections that were used once and stay open.
type idleConns struct {
	addr string
	open []net.Conn
}

func (i *idleConns) close() {
	for _, c := range i.open {
		c.Close()
	}
}

// pssWith reads the processes' Pss with n connections open.
func (i *idleConns) pssWith(n int, pids []int) (uint64, error) {
	reply := make([]byte, messageSize)
	for len(i.open) < n {
		c, err := net.DialTimeout("tcp4", i.addr, grace)
		if err != nil {
			return 0, fmt.Errorf("idle connection %d: %w", len(i.open)+1, err)
		}
		i.open = append(i.open, c)
		if err := c.SetDeadline(time.Now().Add(grace)); err != nil {
			return 0, err
		}
		if err := exchange(c, message(opEcho), reply); err != nil {
			return 0, fmt.Errorf("idle connection %d: %w", len(i.open), err)
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
