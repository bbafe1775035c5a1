package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
)

// median of at least one number.
func median(xs []float64) float64 {
	sorted := slices.Sorted(slices.Values(xs))
	mid := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[mid]
	}
	return (sorted[mid-1] + sorted[mid]) / 2
}

// percentile of sorted times: the smallest that p percent do not exceed.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := (len(sorted)*p + 99) / 100
	return sorted[max(rank, 1)-1]
}

// medianValues takes the median of each metric.
func medianValues(samples []Values) Values {
	columns := map[string][]float64{}
	for _, v := range samples {
		for name, x := range v {
			columns[name] = append(columns[name], x)
		}
	}
	medians := Values{}
	for name, xs := range columns {
		medians[name] = median(xs)
	}
	return medians
}

// ratios divides round by round, where both have a value.
func ratios(of, to []Values, metric string) []float64 {
	var rs []float64
	for i := range min(len(of), len(to)) {
		x, okX := of[i][metric]
		y, okY := to[i][metric]
		if okX && okY && y > 0 {
			rs = append(rs, x/y)
		}
	}
	return rs
}

// number shows about three significant digits.
func (m Metric) number(x float64) string {
	abs := math.Abs(x)
	switch {
	case m.Unit == yesNo && x == 1:
		return "yes"
	case m.Unit == yesNo:
		return "no"
	case abs >= 1000:
		return thousands(int64(math.Round(x)))
	case abs >= 100 || x == math.Trunc(x):
		return fmt.Sprintf("%.0f", x)
	case abs >= 10:
		return fmt.Sprintf("%.1f", x)
	default:
		return fmt.Sprintf("%.2f", x)
	}
}

// thousands groups digits: 12,345.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}
