package launch

import (
	"bufio"
	"os"
	"slices"
	"strings"
	"testing"
)

const smapsOfOthers = `
7f1131820000-7f1131a00000 rw-p 00000000 00:00 0
Rss:                  84 kB
Anonymous:            84 kB
7f1132000000-7f1132001000 r--p 00000000 fd:00 99 /tmp/other
Anonymous:             0 kB
`

func TestProgramMappings(t *testing.T) {
	for _, c := range []struct {
		name, smaps string
		want        []mapping
	}{
		{"text and constants", `00400000-008bd000 r-xp 00000000 fd:00 12 /opt/a b
Rss:                4532 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
008bd000-00e63000 r--p 004bd000 fd:00 12 /opt/a b
Anonymous:             0 kB`, []mapping{{0x400000, 0x8bd000}, {0x8bd000, 0xe63000}}},
		{"variables", "00e63000-00ec4000 rw-p 00a63000 fd:00 12 /opt/a b\nAnonymous:  0 kB", nil},
		{"relocated constants", "00400000-008bd000 r--p 00000000 fd:00 12 /opt/a b\nAnonymous:  4 kB", nil},
	} {
		got, err := programMappings(bufio.NewScanner(strings.NewReader(c.smaps+smapsOfOthers)), "/opt/a b")
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: got %x, %v, want %x", c.name, got, err, c.want)
		}
	}
	if _, err := programMappings(bufio.NewScanner(strings.NewReader("x-y r--p 0 0 0 /opt/a b")), "/opt/a b"); err == nil {
		t.Error("no error for addresses that are none")
	}
}

// The program goes on after its pages were unmapped, and fewer are mapped.
func TestUnmapProgram(t *testing.T) {
	before := residentFile(t)
	if err := unmapProgram(); err != nil {
		t.Fatal(err)
	}
	if after := residentFile(t); after >= before {
		t.Errorf("%d kB of files are mapped, before %d kB", after, before)
	}
}

// residentFile is RssFile of /proc/self/status, in kB.
func residentFile(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "RssFile:")
	n := 0
	for _, c := range strings.TrimSpace(rest) {
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + int(c-'0')
	}
	return n
}
