package publish

import (
	"net/netip"
	"testing"
	"time"
)

// TestProxyIsTriedSeldom: a client that a container refuses is led to the proxy after a
// second, and then less and less often; others have times of their own.
func TestProxyIsTriedSeldom(t *testing.T) {
	client, other := netip.MustParseAddrPort("198.51.100.7:1"), netip.MustParseAddrPort("198.51.100.7:2")
	var trials udpTrials
	trials.of(netip.MustParseAddrPort("172.17.0.2:80"))
	began := time.Now()
	var tried []time.Duration
	for at := time.Duration(0); at < time.Hour; at += 500 * time.Millisecond {
		if trials.tryProxy(client, began.Add(at)) {
			tried = append(tried, at)
		}
	}
	if len(tried) < 5 || tried[0] != time.Second || tried[1] != 5*time.Second || tried[2] != 21*time.Second {
		t.Errorf("tried after %v", tried)
	}
	for i, at := range tried[1:] {
		if at-tried[i] > maxSilence {
			t.Errorf("not tried between %v and %v", tried[i], at)
		}
	}
	if trials.tryProxy(other, began.Add(time.Hour)) {
		t.Error("another client is led to the proxy at once")
	}
	trials.of(netip.MustParseAddrPort("172.17.0.3:80"))
	if trials.tryProxy(client, began.Add(time.Hour)) {
		t.Error("a refusal of another container counts")
	}
}
