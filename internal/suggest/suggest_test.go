package suggest

import "testing"

func TestNearest(t *testing.T) {
	names := []string{"host", "none", "pasta", "slirp4netns", "gvisor-tap-vsock"}
	for s, want := range map[string]string{
		"past":            "pasta",
		"patsa":           "pasta",
		"hots":            "host",
		"slirp":           "slirp4netns",
		"gvisor":          "gvisor-tap-vsock",
		"sl":              "",
		"slirp4net":       "slirp4netns",
		"gvisor-tapvsock": "gvisor-tap-vsock",
		"foo":             "",
		"":                "",
		"n":               "",
		"none":            "none",
	} {
		if got := Nearest(s, names); got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}
