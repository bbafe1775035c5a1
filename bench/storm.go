package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A storm of short connections meets a published port while transfers go through
// it. A transfer that a client has begun is to end in time, whatever else comes.
const (
	stormClients  = 512
	stormTransfer = 8 << 20
	stormStreams  = 4
	stormTimeout  = 10 * time.Second // of each transfer
)

func stormFigures() []Figure {
	what := fmt.Sprintf("%d transfers of %d MiB at a time in a storm of %d clients that connect", stormStreams, stormTransfer>>20, stormClients)
	metrics := []Metric{rate("transfers/s"), loss("not done in time", "%"), {Name: "connections", Unit: "/s"},
		loss("connections failed", "/s"), cost("peak", "MiB")}
	return []Figure{
		{ID: "storm", Group: "storm", For: everyTarget, Title: what, Metrics: metrics, MaxRounds: 3, Sample: stormSampler(false)},
		{ID: "out-storm", Group: "storm", For: hasNetwork, Title: "outbound: " + what, Metrics: metrics, MaxRounds: 3, Sample: stormSampler(true)},
	}
}

// stormSampler runs both loads at once, and reads the launcher's largest resident
// set at the end.
func stormSampler(out bool) func(context.Context, *runner, Target) (Values, error) {
	return func(ctx context.Context, r *runner, t Target) (Values, error) {
		s, err := r.open(ctx, t)
		if err != nil {
			return nil, err
		}
		defer s.close()
		load := Load{Kind: storm, Clients: stormClients, Duration: r.opts.duration}
		v, err := s.stormLoad(ctx, load, out)
		if err != nil || t.Launcher == "" {
			return v, err
		}
		launcher, helpers := s.processes(r.tools)
		peak, err := peakRSS(append(launcher, helpers...))
		v["peak"] = mib(peak)
		return v, err
	}
}

func (s *session) stormLoad(ctx context.Context, l Load, out bool) (Values, error) {
	if out {
		return s.loadOut(l)
	}
	return s.loadIn(ctx, l)
}

// transfers counts what became of them.
type transfers struct{ done, lost atomic.Uint64 }

func runStorm(l Load) (Values, error) {
	var count transfers
	var streams sync.WaitGroup
	end := time.Now().Add(l.Duration)
	for i := range stormStreams {
		streams.Go(func() { count.keepOn(l.Addr, i%2 == 0, end) })
	}
	v, err := runConnections(l)
	streams.Wait()
	if err != nil {
		return nil, err
	}
	done, lost := count.done.Load(), count.lost.Load()
	return Values{
		"rate": perSecond(done, l.Duration), "not done in time": percent(lost, done+lost),
		"connections": v["rate"], "connections failed": v["failed"],
	}, nil
}

// keepOn makes one transfer after the other.
func (t *transfers) keepOn(addr string, up bool, end time.Time) {
	for time.Now().Before(end) {
		if transfer(addr, up) != nil {
			t.lost.Add(1)
			continue
		}
		t.done.Add(1)
	}
}

// transfer moves one file's worth of bytes over a connection of its own.
func transfer(addr string, up bool) error {
	c, err := net.DialTimeout("tcp4", addr, stormTimeout)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(stormTimeout)); err != nil {
		return err
	}
	if up {
		return sendFile(c)
	}
	if _, err := c.Write(message(opDownload)); err != nil {
		return err
	}
	_, err = io.CopyN(io.Discard, c, stormTransfer)
	return err
}

// sendFile waits for the server to say that it has it all.
func sendFile(c net.Conn) error {
	if _, err := c.Write(message(opUpload)); err != nil {
		return err
	}
	block := make([]byte, blockSize)
	for n := blockSize; n <= stormTransfer; n += blockSize {
		if n == stormTransfer {
			block[0] = lastBlock
		}
		if _, err := c.Write(block); err != nil {
			return err
		}
	}
	_, err := io.ReadFull(c, make([]byte, 8))
	return err
}
