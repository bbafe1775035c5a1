package main

import (
	"context"
	"time"
)

const (
	memoryLoad      = 10 * time.Second
	memoryLoadQuick = time.Second
)

func memoryLoadFigures() []Figure {
	return []Figure{{
		ID: "memory-load", Group: "memory", Title: "resident memory and 10 s at full speed", For: launched,
		Metrics:   []Metric{cost("during", "MiB"), cost("10 s later", "MiB"), cost("10 s later, private", "MiB")},
		MaxRounds: 1,
		Sample:    sampleMemoryLoad,
	}}
}

// sampleMemoryLoad takes the highest Pss of the launcher and its helpers while
// one stream goes to the namespace at full speed, and the Pss a while after.
func sampleMemoryLoad(ctx context.Context, r *runner, t Target) (Values, error) {
	s, err := r.open(ctx, t)
	if err != nil {
		return nil, err
	}
	defer s.close()
	launcher, helpers := s.processes(r.tools)
	processes := append(launcher, helpers...)
	load := Load{Kind: upload, Clients: 1, Duration: memoryLoad}
	if r.opts.quick {
		load.Duration = memoryLoadQuick
	}
	ended := make(chan error, 1)
	go func() {
		_, err := s.loadIn(ctx, load)
		ended <- err
	}()
	highest, err := highestPSS(processes, ended)
	if err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(load.Duration):
	}
	after, err := pss(processes)
	if err != nil {
		return nil, err
	}
	private, err := uss(processes)
	return Values{"during": mib(highest), "10 s later": mib(after), "10 s later, private": mib(private)}, err
}

// highestPSS reads Pss until the load has ended.
func highestPSS(pids []int, ended <-chan error) (highest uint64, err error) {
	err = during(ended, func() error {
		now, err := pss(pids)
		highest = max(highest, now)
		return err
	})
	return highest, err
}

// during looks again and again until the load has ended.
func during(ended <-chan error, look func() error) error {
	for {
		if err := look(); err != nil {
			<-ended
			return err
		}
		select {
		case err := <-ended:
			return err
		case <-time.After(settleStep):
		}
	}
}
