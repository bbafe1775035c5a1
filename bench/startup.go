package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"time"
)

const startsPerRound = 10

func startupFigures() []Figure {
	return []Figure{{
		ID: "startup", Group: "startup", Title: "start-up: --net=none true", For: withoutNetwork,
		Metrics: []Metric{cost("wall time", "ms")},
		Repeat:  startsPerRound,
		Sample:  sampleStartup,
	}}
}

// sampleStartup times one whole run of a launcher.
func sampleStartup(ctx context.Context, r *runner, t Target) (Values, error) {
	cmd := exec.CommandContext(ctx, r.tools.launcher(t.Launcher), "--net=none", "true")
	var log bytes.Buffer
	cmd.Stderr = &log
	start := time.Now()
	err := cmd.Run()
	took := time.Since(start)
	endOrphans()
	if err != nil {
		return nil, fmt.Errorf("--net=none true: %w: %s", err, bytes.TrimSpace(log.Bytes()))
	}
	return Values{"wall time": float64(took) / float64(time.Millisecond)}, nil
}
