package main

import "testing"

// TestIsolatingFirst: a network with which the host's loopback stays reachable is the
// last choice where that is to be prohibited.
func TestIsolatingFirst(t *testing.T) {
	var names string
	for _, n := range isolatingFirst(autoNetworks) {
		names += n.name + " "
	}
	if want := "gvisor-tap-vsock pasta slirp4netns "; names != want {
		t.Errorf("%s, want %s", names, want)
	}
	if autoNetworks[1].name != "slirp4netns" {
		t.Error("the table itself was changed")
	}
}
