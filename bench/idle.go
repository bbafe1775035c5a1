package main

import (
	"context"
	"time"
)

const (
	idleTime      = 10 * time.Second
	idleTimeQuick = time.Second
)

func idleFigures() []Figure {
	return []Figure{{
		ID: "idle", Group: "idle", Title: "CPU time of an idle launcher with one published port, over 10 s", For: launched,
		Metrics:   []Metric{loss("launcher", "ticks"), loss("helpers", "ticks")},
		MaxRounds: 2,
		Sample:    sampleIdle,
	}}
}

// sampleIdle counts the ticks (10 ms) that the processes use while nothing
// happens.
func sampleIdle(ctx context.Context, r *runner, t Target) (Values, error) {
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
	before, err := ticksOf(launcher, helpers)
	if err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(r.idleTime()):
	}
	after, err := ticksOf(launcher, helpers)
	if err != nil {
		return nil, err
	}
	return Values{"launcher": float64(after[0] - before[0]), "helpers": float64(after[1] - before[1])}, nil
}

func ticksOf(launcher, helpers []int) (t [2]uint64, err error) {
	if t[0], err = ticks(launcher); err != nil {
		return t, err
	}
	t[1], err = ticks(helpers)
	return t, err
}

func (r *runner) idleTime() time.Duration {
	if r.opts.quick {
		return idleTimeQuick
	}
	return idleTime
}
