package fdlimit

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCeiling opens descriptors up to the limit.
func TestCeiling(t *testing.T) {
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	low := old
	low.Cur = 128
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &old) }()
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
