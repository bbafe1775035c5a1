package main

import (
	"fmt"
	"net"
	"os"
	"time"
)

// Many connections of the namespace to another host: what they cost while they are
// silent, and while all of them are in use.
const (
	crowdIdle   = 10000
	crowdActive = 2000
	crowdHeld   = 3 * time.Second // how long the silent ones are held
	crowdGrace  = 20 * time.Second
)

// held connections are used once and then stay open.
const held = "held"

func crowdFigures() []Figure {
	metrics := []Metric{cost("memory", "MiB"), cost("of a connection", "KiB"), cost("descriptors", "")}
	idle := append(metrics[:3:3], Metric{Name: "opened"}, Metric{Name: "answering afterwards"})
	active := append(metrics[:3:3], rate("/s"), cost("p50", "µs"), cost("p99", "µs"))
	return []Figure{
		{ID: "crowd-idle", Group: "crowd", Title: fmt.Sprintf("to another host: %d connections, idle", crowdIdle), For: crowded, LAN: true, MaxRounds: 3,
			Metrics: idle, Sample: lanSampler(Load{Kind: held, Clients: crowdIdle, Duration: crowdHeld}, runCrowd)},
		{ID: "crowd-active", Group: "crowd", Title: fmt.Sprintf("to another host: requests of %d connections", crowdActive), For: crowded, LAN: true, MaxRounds: 3,
			Metrics: active, Sample: lanSampler(Load{Kind: requests, Clients: crowdActive}, runCrowd)},
	}
}

func crowded(t Target) bool { return launched(t) && goesOut(t) }

// runCrowd takes the most that the launcher and its helpers use during the load.
func runCrowd(r *runner, s *session, load Load) (Values, error) {
	time.Sleep(settleFirst)
	launcher, helpers := s.processes(r.tools)
	processes := append(launcher, helpers...)
	before, err := settledPSS(processes)
	if err != nil {
		return nil, err
	}
	var v Values
	ended := make(chan error, 1)
	go func() {
		var err error
		v, err = s.agent.run(load)
		ended <- err
	}()
	var most, open uint64
	err = during(ended, func() error {
		if now, err := pss(processes); err == nil { // otherwise a helper has ended
			most, open = max(most, now), max(open, descriptors(processes))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	v["memory"] = mib(most)
	if open > 0 {
		v["descriptors"] = float64(open)
	}
	opened, ok := v["opened"]
	if !ok {
		opened = float64(load.Clients)
	}
	v["of a connection"] = float64(most-min(most, before)) / max(opened, 1)
	return v, nil
}

// runHeld opens as many connections as there can be, and holds them for the duration.
func runHeld(l Load) (Values, error) {
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range l.Clients {
		c, err := l.connected()
		if err != nil {
			break
		}
		conns = append(conns, c)
	}
	time.Sleep(l.Duration)
	answering := 0
	end := time.Now().Add(crowdGrace) // of all: where a helper has died, none answers
	for _, c := range conns {
		if err := exchangeUntil(c, end); err == nil {
			answering++
		}
	}
	return Values{"opened": float64(len(conns)), "answering afterwards": float64(answering)}, nil
}

func exchangeUntil(c net.Conn, end time.Time) error {
	if err := c.SetDeadline(end); err != nil {
		return err
	}
	return exchange(c, message(opEcho), make([]byte, messageSize))
}

// descriptors counts the open ones; 0: a program hides them (pasta is not dumpable).
func descriptors(pids []int) uint64 {
	n, err := sum(pids, func(pid int) (uint64, error) {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		return uint64(len(entries)), err
	})
	if err != nil {
		return 0
	}
	return n
}
