package userns

import (
	"os/user"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var alice = &user.User{Username: "alice", Uid: "1000"}

func TestParseSubIDs(t *testing.T) {
	got, err := parseSubIDs(strings.NewReader("# comment\nbob:1:2\nalice:100000:65536\n\n1000:300000:10\nmallory:x:y\n"), alice)
	if err != nil {
		t.Fatal(err)
	}
	want := []Range{{100000, 65536}, {300000, 10}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestParseSubIDsNamesTheBadLine(t *testing.T) {
	for _, line := range []string{"alice:x:1", "alice:1:", "alice", "alice:4294967295:2", "alice:-1:3"} {
		_, err := parseSubIDs(strings.NewReader(line), alice)
		if err == nil || !strings.Contains(err.Error(), line) {
			t.Errorf("%q: error %v does not name the line", line, err)
		}
	}
}

func TestParseGetsubids(t *testing.T) {
	got, err := parseGetsubids("0: alice 100000 65536\n1: alice 300000 10\n")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]Range{{100000, 65536}, {300000, 10}}, got); d != "" {
		t.Error(d)
	}
	if _, err := parseGetsubids("Error fetching ranges\n"); err == nil {
		t.Error("an error message was taken for a range")
	}
}

func TestNewIDMapSkipsARangeWithTheOwnID(t *testing.T) {
	m := NewIDMap(1000, 1000, SubIDs{
		UIDs: []Range{{900, 200}, {100000, 10}, {200000, 5}},
		GIDs: []Range{{100000, 10}},
	})
	wantUIDs := []Mapping{{0, 1000, 1}, {1, 100000, 10}, {11, 200000, 5}}
	if d := cmp.Diff(wantUIDs, m.UIDs); d != "" {
		t.Error(d)
	}
	if len(m.Skipped) != 1 || !strings.Contains(m.Skipped[0], "900+200") {
		t.Errorf("skipped: %q", m.Skipped)
	}
	if m.SingleID() || !NewIDMap(1, 1, SubIDs{}).SingleID() {
		t.Error("SingleID is wrong")
	}
}

func FuzzParseSubIDs(f *testing.F) {
	f.Add("alice:100000:65536\n")
	f.Fuzz(func(t *testing.T, s string) {
		ranges, err := parseSubIDs(strings.NewReader(s), alice)
		if err != nil {
			return
		}
		for _, r := range ranges {
			if uint64(r.Start)+uint64(r.Count) > 1<<32 {
				t.Errorf("range %v is beyond 32 bits", r)
			}
		}
	})
}
