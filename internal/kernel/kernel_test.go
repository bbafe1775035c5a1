package kernel

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRemembered: what an errno says of the kernel is asked once, and a shortage again.
func TestRemembered(t *testing.T) {
	answers, asked := []error{unix.EMFILE, unix.ENOSYS, nil}, 0
	f := &Feature{Name: "thing", Since: "9.9", probe: func() error { asked++; return answers[asked-1] }}
	for i, want := range []error{unix.EMFILE, unix.ENOSYS, unix.ENOSYS} {
		err := f.Check()
		if !errors.Is(err, want) || !strings.Contains(err.Error(), "the kernel has no thing (Linux 9.9 or newer)") {
			t.Errorf("answer %d: %v", i, err)
		}
	}
	if asked != 2 {
		t.Errorf("asked %d times", asked)
	}
}

func TestModulesAreNamed(t *testing.T) {
	if text := IPTables.Lacks(unix.ENOPROTOOPT).Error(); !strings.Contains(text, "modprobe -a ip_tables iptable_mangle") {
		t.Error(text)
	}
}

// TestProbesAgreeWithTheVersion: a feature is there from the version on that it is said
// to be of, unless it was left out (ENOSYS, of seccomp and Landlock) or switched off at
// boot (EOPNOTSUPP, of Landlock). A distribution may have it earlier.
func TestProbesAgreeWithTheVersion(t *testing.T) {
	running := Release()
	for _, f := range All() {
		err := f.Check()
		if f.Since == "" || errors.Is(err, ErrUnknown) {
			continue
		}
		switch {
		case err == nil && older(running, f.Since):
			t.Logf("%s of Linux %s is in %s", f.Name, f.Since, running)
		case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP):
		case err != nil && !older(running, f.Since):
			t.Errorf("%s of Linux %s, on %s: %v", f.Name, f.Since, running, err)
		}
	}
}

// older reports whether a release is older than a version "5.14".
func older(release, version string) bool {
	var major, minor, thatMajor, thatMinor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n != 2 {
		return false
	}
	_, _ = fmt.Sscanf(version, "%d.%d", &thatMajor, &thatMinor)
	return major < thatMajor || major == thatMajor && minor < thatMinor
}
