package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// The chart's measures, in pixels.
const (
	chartWidth  = 760
	labelWidth  = 250
	plotWidth   = 440
	barHeight   = 11
	barGap      = 2
	groupGap    = 14
	chartTop    = 78
	chartBottom = 34
)

// chartStyle works on a light and on a dark page: the background is the
// page's, and the text follows its scheme.
const chartStyle = `<style>
text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328 }
.title { font-size: 15px; font-weight: 600 }
.note, .tick { fill: #59636e }
.value { font-size: 10px; fill: #59636e }
.grid { stroke: #d1d9e0; stroke-width: 1 }
.direct { stroke: #59636e; stroke-width: 1.5; stroke-dasharray: 4 3 }
.s0 { fill: #2f81f7 } .s1 { fill: #8c959f } .s2 { fill: #d29922 } .s3 { fill: #3fb950 }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc }
.note, .tick, .value { fill: #9198a1 }
.grid { stroke: #3d444d }
.direct { stroke: #9198a1 }
}
</style>
`

// series is one colour: the first of its targets that has values.
type series struct {
	name    string
	targets []string
}

// chart is a picture of ratios to direct.
type chart struct {
	file, title string
	series      []series
	figures     []chartFigure
}

type chartFigure struct{ id, label string }

// charts are those of the README.
var charts = []chart{
	{
		file: "results.svg", title: "Published ports, as a share of the same load without a namespace",
		series: []series{
			{"RootlessKit, builtin", []string{"ours-builtin"}},
			{"upstream, builtin", []string{"upstream-builtin"}},
			{"pasta", []string{"upstream-pasta", "ours-pasta"}},
		},
		figures: []chartFigure{
			{"tcp-up-1", "TCP to the namespace, 1 stream"},
			{"tcp-down-1", "TCP from the namespace, 1 stream"},
			{"tcp-up-4", "TCP to the namespace, 4 streams"},
			{"tcp-down-4", "TCP from the namespace, 4 streams"},
			{"conns-8", "connections/s, 8 workers"},
			{"rr-1", "requests/s, 1 connection"},
			{"rr-32", "requests/s, 32 connections"},
			{"udp-echo-4", "UDP echoes/s, 4 clients"},
			{"udp-echo-8", "UDP echoes/s, 8 clients"},
			{"udp-flood", "UDP received of 60,000/s"},
		},
	},
	{
		file: "outbound.svg", title: "The way out to another host, as a share of the same load without a namespace",
		series: []series{
			{"RootlessKit, embedded", []string{"ours-docker"}},
			{"upstream, embedded", []string{"upstream-docker"}},
			{"pasta", []string{"ours-pasta", "upstream-pasta"}},
			{"slirp4netns", []string{"ours-slirp4netns", "upstream-slirp4netns"}},
		},
		figures: []chartFigure{
			{"lan-conns-1", "connections/s, 1 worker"},
			{"lan-conns-8", "connections/s, 8 workers"},
			{"lan-rr-1", "requests/s, 1 connection"},
			{"lan-rr-8", "requests/s, 8 connections"},
			{"lan-udp-8", "UDP echoes/s, 8 clients"},
			{"lan-dns-1", "DNS queries/s, 1 client"},
			{"lan-dns-200", "DNS queries/s, 200 clients"},
			{"lan-up-1", "TCP, sending, 1 stream"},
			{"lan-down-1", "TCP, receiving, 1 stream"},
		},
	},
}

type bar struct {
	series int
	ratio  float64
}

type barGroup struct {
	label string
	bars  []bar
}

func (c chart) groups(r Results) []barGroup {
	figures := map[string]Figure{}
	for _, f := range allFigures() {
		figures[f.ID] = f
	}
	var groups []barGroup
	for _, f := range c.figures {
		g := barGroup{label: f.label}
		for i, s := range c.series {
			if ratio, ok := s.ratio(r, figures[f.id]); ok {
				g.bars = append(g.bars, bar{i, ratio})
			}
		}
		if len(g.bars) > 0 {
			groups = append(groups, g)
		}
	}
	return groups
}

func (s series) ratio(r Results, f Figure) (float64, bool) {
	for _, t := range s.targets {
		if x, ok := r.ratio(f.ID, f.Metrics[0].Name, t, direct); ok {
			return x, true
		}
	}
	return 0, false
}

// draw draws the ratios to direct as horizontal bars.
func (c chart) draw(r Results) string {
	groups := c.groups(r)
	top, height := 1.0, chartTop
	for _, g := range groups {
		height += len(g.bars)*(barHeight+barGap) + groupGap
		for _, b := range g.bars {
			top = max(top, math.Ceil(b.ratio*5)/5)
		}
	}
	p := &canvas{scale: plotWidth / top, bottom: height}
	fmt.Fprintf(p, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" role="img">`+"\n",
		chartWidth, height+chartBottom)
	p.WriteString("<title>" + html.EscapeString(c.title) + "</title>\n" + chartStyle)
	p.text(16, 24, "title", "start", c.title)
	p.legend(c.series, groups)
	p.axis(top)
	p.groups(groups)
	p.WriteString("</svg>\n")
	return p.String()
}

type canvas struct {
	strings.Builder
	scale  float64 // pixels for a ratio of 1
	bottom int
}

func (c *canvas) x(ratio float64) float64 { return labelWidth + ratio*c.scale }

func (c *canvas) text(x, y float64, class, anchor, s string) {
	fmt.Fprintf(c, `<text x="%.1f" y="%.1f" class="%s" text-anchor="%s">%s</text>`+"\n", x, y, class, anchor, html.EscapeString(s))
}

func (c *canvas) rect(x, y, width, height float64, class string) {
	fmt.Fprintf(c, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="1.5" class="%s"/>`+"\n", x, y, width, height, class)
}

// legend names the series that have bars.
func (c *canvas) legend(all []series, groups []barGroup) {
	used := map[int]bool{}
	for _, g := range groups {
		for _, b := range g.bars {
			used[b.series] = true
		}
	}
	x := 16.0
	for i, s := range all {
		if used[i] {
			c.rect(x, 39, barHeight, barHeight, fmt.Sprintf("s%d", i))
			c.text(x+barHeight+6, 49, "note", "start", s.name)
			x += 40 + 7*float64(len(s.name))
		}
	}
}

func (c *canvas) axis(top float64) {
	for tick := 0.0; tick < top+0.01; tick += 0.2 {
		class := "grid"
		if math.Abs(tick-1) < 0.01 {
			class = "direct"
		}
		fmt.Fprintf(c, `<line x1="%.1f" x2="%.1[1]f" y1="%d" y2="%d" class="%s"/>`+"\n", c.x(tick), chartTop-8, c.bottom, class)
		c.text(c.x(tick), float64(c.bottom+18), "tick", "middle", fmt.Sprintf("%.1f", tick))
	}
	c.text(c.x(1), chartTop-14, "note", "middle", "no namespace")
}

func (c *canvas) groups(groups []barGroup) {
	y := float64(chartTop)
	for _, g := range groups {
		size := float64(len(g.bars) * (barHeight + barGap))
		c.text(labelWidth-10, y+size/2+3, "", "end", g.label)
		for _, b := range g.bars {
			c.rect(labelWidth, y, b.ratio*c.scale, barHeight, fmt.Sprintf("s%d", b.series))
			c.text(c.x(b.ratio)+4, y+barHeight-2, "value", "start", fmt.Sprintf("%.2f", b.ratio))
			y += barHeight + barGap
		}
		y += groupGap
	}
}
