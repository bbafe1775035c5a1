package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		xs   []float64
		want float64
	}{{[]float64{7}, 7}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 3, 2}, 2.5}} {
		in := slices.Clone(c.xs)
		if got := median(in); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.xs, got, c.want)
		}
		if !slices.Equal(in, c.xs) {
			t.Errorf("median reordered %v", c.xs)
		}
	}
}

func TestPercentile(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for _, c := range []struct {
		times []time.Duration
		p     int
		want  time.Duration
	}{
		{nil, 50, 0}, {hundred[:1], 99, 1}, {hundred, 50, 50}, {hundred, 99, 99}, {hundred, 100, 100}, {hundred, 0, 1},
		{hundred[:3], 50, 2}, {hundred[:3], 99, 3},
	} {
		if got := percentile(c.times, c.p); got != c.want {
			t.Errorf("percentile of %d times, %d: %d, want %d", len(c.times), c.p, got, c.want)
		}
	}
}

func TestRatiosPairRounds(t *testing.T) {
	of := []Values{{"rate": 2}, nil, {"rate": 9}, {"rate": 1}, {"rate": 5}}
	to := []Values{{"rate": 4}, {"rate": 1}, {"rate": 3}, {"rate": 0}}
	if got := ratios(of, to, "rate"); !slices.Equal(got, []float64{0.5, 3}) {
		t.Errorf("ratios = %v", got)
	}
}

func TestMedianValues(t *testing.T) {
	got := medianValues([]Values{{"a": 1, "b": 10}, {"a": 3}, {"a": 2}})
	if got["a"] != 2 || got["b"] != 10 || len(got) != 2 {
		t.Errorf("medianValues = %v", got)
	}
}

func TestNumber(t *testing.T) {
	for x, want := range map[float64]string{
		0: "0", 0.256: "0.26", 9.876: "9.88", 12.34: "12.3", 345.6: "346", 7: "7", 999.7: "1000", 12345.6: "12,346", 1234567: "1,234,567", -4321: "-4,321",
	} {
		if got := (Metric{}).number(x); got != want {
			t.Errorf("number(%v) = %q, want %q", x, got, want)
		}
	}
	truth := Metric{Unit: yesNo}
	if truth.number(1) != "yes" || truth.number(0) != "no" || truth.number(0.5) != "no" {
		t.Error("yes/no")
	}
}

func TestParseGateway(t *testing.T) {
	const routes = "Iface\tDestination\tGateway\tFlags\n" +
		"tap0\t0002000A\t00000000\t0001\n" +
		"tap0\t00000000\t0202000A\t0003\n"
	if got := parseGateway(strings.NewReader(routes)).String(); got != "10.0.2.2" {
		t.Errorf("gateway %s", got)
	}
	for _, none := range []string{"", "Iface\tDestination\tGateway\n", "tap0\t00000000\tx\n", "tap0 00000000"} {
		if got := parseGateway(strings.NewReader(none)); got.IsValid() {
			t.Errorf("%q: gateway %s", none, got)
		}
	}
}

func TestValueOf(t *testing.T) {
	const rollup = "55d0-7ffe ---p 00000000 00:00 0 [rollup]\nRss:   8 kB\nPss:     4321 kB\nPss_Dirty: 7 kB\n"
	if got, err := valueOf([]byte(rollup), "Pss:"); got != 4321 || err != nil {
		t.Errorf("Pss %d, %v", got, err)
	}
	if _, err := valueOf([]byte(rollup), "Swap:"); err == nil {
		t.Error("found what is not there")
	}
}

func TestParseStat(t *testing.T) {
	const line = "42 (a) S 7 (x) Z 17 42 42 0 -1 4194560 1 2 3 4 150 25 0 0 20 0 1 0"
	want := procStat{name: "a) S 7 (x", zombie: true, parent: 17, ticks: 175}
	if got, err := parseStat(line); got != want || err != nil {
		t.Errorf("parseStat = %+v, %v", got, err)
	}
	for _, bad := range []string{"", "1 name S 1", ")(", "1 (x) S", "1 (x) S y 1 1 0 -1 1 1 2 3 4 5 6 7"} {
		if _, err := parseStat(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}
