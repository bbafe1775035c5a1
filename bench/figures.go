package main

import (
	"context"
	"slices"
	"strings"
	"time"
)

// Figure is one measurement; its sample on one target yields a value for each
// of its metrics.
type Figure struct {
	ID, Group, Title string
	Metrics          []Metric
	// For tells the targets that the figure makes sense for.
	For func(Target) bool
	// LAN says that the loads go to another host (lan.go).
	LAN bool
	// Repeat is how many samples a round takes of each target, alternating; the
	// round's value is their median. MaxRounds bounds the rounds. 0 means 1
	// sample, and no bound.
	Repeat, MaxRounds int
	Sample            func(context.Context, *runner, Target) (Values, error)
}

// Metric is one number of a figure.
type Metric struct {
	Name, Unit string
	Lower      bool // lower is better
	Plain      bool // a ratio of two of them says nothing
}

// yesNo is the unit of 1 and 0.
const yesNo = "yes/no"

// Values maps the names of a figure's metrics to their values.
type Values map[string]float64

func rate(unit string) Metric       { return Metric{Name: "rate", Unit: unit} }
func cost(name, unit string) Metric { return Metric{Name: name, Unit: unit, Lower: true} }
func loss(name, unit string) Metric { return Metric{Name: name, Unit: unit, Lower: true, Plain: true} }
func everyTarget(t Target) bool     { return !t.podman() }

// label is the head of the metric's column. A figure's rate needs no name.
func (m Metric) label() string {
	label := strings.TrimSuffix(strings.TrimPrefix(m.Name+", "+m.Unit, "rate, "), ", ")
	if m.Lower {
		label += " ↓"
	}
	return label
}

func allFigures() []Figure {
	return slices.Concat(throughputFigures(), connectionFigures(), requestFigures(), udpFigures(), outboundFigures(), crowdFigures(), httpFigures(),
		memoryFigures(), memoryLoadFigures(), startupFigures(), idleFigures(), faultFigures(), stormFigures(), dockerFigures(), podmanFigures())
}

// inward is a figure of a load that comes from the host through a published
// port.
func inward(id, group, title string, load Load, metrics ...Metric) Figure {
	return Figure{ID: id, Group: group, Title: title, Metrics: metrics, For: everyTarget,
		Sample: func(ctx context.Context, r *runner, t Target) (Values, error) {
			s, err := r.open(ctx, t)
			if err != nil {
				return nil, err
			}
			defer s.close()
			return s.loadIn(ctx, load.during(r.opts.duration))
		}}
}

// outward is a figure of a load that comes from inside the namespace and goes
// to a server in the host.
func outward(id, title string, load Load, metrics ...Metric) Figure {
	return Figure{ID: id, Group: "out", Title: title, Metrics: metrics, For: hasNetwork,
		Sample: func(ctx context.Context, r *runner, t Target) (Values, error) {
			s, err := r.open(ctx, t)
			if err != nil {
				return nil, err
			}
			defer s.close()
			return s.loadOut(load.during(r.opts.duration))
		}}
}

// Load is what one side of a connection does to the other. It travels to the
// agent as JSON.
type Load struct {
	Kind     string        `json:"kind"`
	Addr     string        `json:"addr"`
	Clients  int           `json:"clients"` // concurrent connections or flows
	Duration time.Duration `json:"duration"`
}

// The kinds of load.
const (
	upload      = "upload"
	download    = "download"
	connections = "connections"
	requests    = "requests"
	udpEcho     = "udp-echo"
	udpFlood    = "udp-flood"
	storm       = "storm"
	dnsQueries  = "dns"
)

func (l Load) during(d time.Duration) Load {
	l.Duration = d
	return l
}

func (l Load) udp() bool { return l.Kind == udpEcho || l.Kind == udpFlood }

// grace is how long a load may take beyond its duration before its sockets
// time out.
const grace = 5 * time.Second

func (l Load) run() (Values, error) {
	run := map[string]func(Load) (Values, error){
		upload: runUpload, download: runDownload, connections: runConnections,
		requests: runRequests, storm: runStorm, held: runHeld, dnsQueries: runDNS, udpEcho: runUDPEcho, udpFlood: runUDPFlood,
		httpConnections: runHTTPConnections, httpRequests: runHTTPRequests, httpDownload: runHTTPDownload,
	}
	return run[l.Kind](l)
}
