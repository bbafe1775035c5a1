package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// The group podman measures helpers of rootless Podman (rootlessport), without Podman:
// in the namespaces that it makes, and told what it tells them, see podmanworld.go.

// Names of helpers, as launchers.
const (
	podmanOurs = "rootlessport"
	podmanOwn  = "podman-rootlessport"
)

// ownHelpers is where distributions have Podman's own.
var ownHelpers = []string{"/usr/libexec/podman/rootlessport", "/usr/lib/podman/rootlessport"}

// findOwnHelper returns Podman's own helper, or "".
func findOwnHelper() string {
	for _, path := range ownHelpers {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

func (t Target) podman() bool { return t.Launcher == podmanOurs || t.Launcher == podmanOwn }

func podman(t Target) bool { return t.podman() }

func podmanFigures() []Figure {
	each := cost("CPU", "µs each")
	figures := []Figure{
		podmanLoad("podman-conns", "connections a second, 8 workers", Load{Kind: connections, Clients: 8}, rate("/s"), each),
		podmanLoad("podman-rr-1", "requests a second, 1 client", Load{Kind: requests, Clients: 1}, rate("/s"), each),
		podmanLoad("podman-rr-16", "requests a second, 16 clients", Load{Kind: requests, Clients: 16}, rate("/s"), each),
		podmanLoad("podman-up", "TCP to the container", Load{Kind: upload, Clients: 1}, rate("Gbit/s"), cost("CPU", "ms/GB")),
		podmanLoad("podman-down", "TCP from the container", Load{Kind: download, Clients: 1}, rate("Gbit/s"), cost("CPU", "ms/GB")),
		podmanLoad("podman-udp", "UDP echo, 8 clients", Load{Kind: udpEcho, Clients: 8}, rate("/s"), each),
		podmanStart("podman-start-1", "start, with one port", 1),
		podmanStart("podman-start-1000", "start, with 1,000 ports", 1000),
	}
	return append(figures, Figure{
		ID: "podman-memory", Group: "podman", Title: "the helper's memory", For: podman, Metrics: memoryMetrics(), Sample: sampleMemory,
	})
}

// podmanLoad is a figure of a load, and of the helper's CPU time for it.
func podmanLoad(id, title string, load Load, speed, cpu Metric) Figure {
	return Figure{ID: id, Group: "podman", Title: title, For: podman, Metrics: []Metric{speed, cpu},
		Sample: func(ctx context.Context, r *runner, t Target) (Values, error) {
			s, err := r.open(ctx, t)
			if err != nil {
				return nil, err
			}
			defer s.close()
			helper, _ := s.processes(r.tools)
			before, err := ticks(helper)
			if err != nil {
				return nil, err
			}
			values, err := s.loadIn(ctx, load.during(r.opts.duration))
			if err != nil {
				return nil, err
			}
			after, err := ticks(helper)
			if err != nil {
				return nil, err
			}
			used := float64(after-before) / 100
			done := values["rate"] * r.opts.duration.Seconds()
			values["CPU"] = used * 1e6 / done
			if speed.Unit == "Gbit/s" {
				values["CPU"] = used * 1e3 / (done / 8)
			}
			return values, nil
		}}
}

func podmanStart(id, title string, ports int) Figure {
	return Figure{ID: id, Group: "podman", Title: title, For: podman, Repeat: 3, Metrics: []Metric{cost("wall time", "ms")},
		Sample: func(ctx context.Context, r *runner, t Target) (Values, error) {
			cmd := exec.CommandContext(ctx, r.tools.bench(), podmanArg, r.tools.launcher(t.Launcher), r.opts.address, "20000", strconv.Itoa(ports))
			out, err := cmd.Output()
			endOrphans()
			if err != nil {
				return nil, fmt.Errorf("%v: %w", cmd.Args, err)
			}
			took, err := time.ParseDuration(strings.TrimSpace(string(out)))
			return Values{"wall time": float64(took) / float64(time.Millisecond)}, err
		}}
}
