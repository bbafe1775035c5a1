package fdlimit

import (
	"os"
	"testing"

	"rootlesskit/internal/nstest"
)

// TestCeiling opens descriptors up to the limit.
func TestCeiling(t *testing.T) {
	nstest.LimitFDs(t, 128)
	if got := Get(); got != 128 {
		t.Errorf("limit %d, want 128", got)
	}
	ceiling := Ceiling()
	if ceiling != 120 { // a sixteenth is spared
		t.Errorf("ceiling %d, want 120", ceiling)
	}
	highest := 0
	for Room() > 0 {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatalf("below the ceiling: %v", err)
		}
		defer f.Close()
		highest = max(highest, int(f.Fd()))
	}
	if highest != ceiling-1 {
		t.Errorf("there was room until descriptor %d, want %d", highest, ceiling-1)
	}
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			break
		}
		defer f.Close()
	}
	if n := Room(); n != 0 {
		t.Errorf("room for %d with no descriptor left", n)
	}
}
