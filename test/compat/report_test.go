package compat

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// report is what was found through one implementation: key to value.
type report map[string]string

// absent stands for the value of a key that one of two reports lacks.
const absent = "<nothing>"

func (r report) value(key string) string {
	if v, ok := r[key]; ok {
		return v
	}
	return absent
}

// read adds what the probe printed.
func (s *subject) read(t *testing.T, printed string) {
	t.Helper()
	for _, line := range strings.Split(strings.TrimSpace(printed), "\n") {
		key, quoted, _ := strings.Cut(line, "\t")
		value, err := strconv.Unquote(quoted)
		if err != nil {
			t.Errorf("the probe printed %q", line)
			return
		}
		s.say(key, value)
	}
}

// compare has a question asked of both implementations and fails on each
// difference that is not listed. One that a second look does not show is
// the machine's: other programs mount, and open sockets, too.
func compare(t *testing.T, ask func(*testing.T, *subject)) {
	t.Helper()
	test := strings.TrimPrefix(t.Name(), "Test")
	upstream, here := askBoth(t, ask)
	unlisted := slices.DeleteFunc(differing(upstream, here), func(key string) bool {
		return listed(test, key, upstream.value(key), here.value(key))
	})
	if len(unlisted) == 0 {
		return
	}
	againUpstream, againHere := askBoth(t, ask)
	for i, key := range unlisted {
		there, ours := upstream.value(key), here.value(key)
		switch {
		case againUpstream.value(key) != there || againHere.value(key) != ours:
			t.Logf("%s varies: upstream %q and %q, here %q and %q", key, there, againUpstream.value(key), ours, againHere.value(key))
		case i < 200:
			t.Errorf("%s: %s\n\tupstream: %q\n\there:     %q", test, key, there, ours)
		default:
			t.Errorf("%s: %s", test, key)
		}
	}
}

func askBoth(t *testing.T, ask func(*testing.T, *subject)) (upstream, here report) {
	for _, name := range []string{"upstream", "here"} {
		s := newSubject(t, name)
		ask(t, s)
		if len(s.report) == 0 {
			t.Fatalf("nothing was found through %s", name)
		}
		if name == "here" {
			return upstream, s.report
		}
		upstream = s.report
	}
	return nil, nil
}

func differing(a, b report) (keys []string) {
	for key, value := range a {
		if b.value(key) != value {
			keys = append(keys, key)
		}
	}
	for key := range b {
		if _, ok := a[key]; !ok {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// difference is one that is meant. Its patterns match the whole of what they
// are for; an empty one matches all.
type difference struct {
	test, key, upstream, here string
	reason                    string
	sometimes                 bool // the original does not always differ
}

var used = struct {
	sync.Mutex
	entries map[int]bool
}{entries: map[int]bool{}}

// listed reports whether a difference is meant. All entries that say so count
// as used.
func listed(test, key, upstream, here string) (found bool) {
	used.Lock()
	defer used.Unlock()
	for i, d := range meant {
		if matches(d.test, test) && matches(d.key, key) && matches(d.upstream, upstream) && matches(d.here, here) {
			used.entries[i] = true
			found = true
		}
	}
	return found
}

func matches(pattern, s string) bool {
	return pattern == "" || regexp.MustCompile(`(?s)^(`+pattern+`)$`).MatchString(s)
}
