package main

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const events = `{"Action":"build-output","ImportPath":"m/broken","Output":"x.go:1: broken\n"}
{"Action":"start","Package":"m/good"}
{"Action":"run","Package":"m/good","Test":"TestA"}
{"Action":"output","Package":"m/good","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"m/good","Test":"TestA","Output":"    a_test.go:1: chatter\n"}
{"Action":"run","Package":"m/good","Test":"TestB"}
{"Action":"output","Package":"m/good","Test":"TestB","Output":"    b_test.go:2: this kernel has none\n"}
{"Action":"output","Package":"m/good","Test":"TestB","Output":"--- SKIP: TestB (0.00s)\n"}
{"Action":"pass","Package":"m/good","Test":"TestA","Elapsed":1}
{"Action":"skip","Package":"m/good","Test":"TestB"}
{"Action":"output","Package":"m/good","Output":"PASS\n"}
{"Action":"pass","Package":"m/good","Elapsed":1.5}
{"Action":"run","Package":"m/bad","Test":"TestC"}
{"Action":"output","Package":"m/bad","Test":"TestC","Output":"    c_test.go:3: got 1, want 2\n"}
{"Action":"fail","Package":"m/bad","Test":"TestC"}
{"Action":"output","Package":"m/bad","Output":"exit status 1\n"}
{"Action":"fail","Package":"m/bad","Elapsed":2}
{"Action":"run","Package":"m/more","Test":"TestD"}
{"Action":"run","Package":"m/more","Test":"TestD/sub"}
`

const reported = `x.go:1: broken
ok   good                                        1.5 s   1 of 4 packages, T
    c_test.go:3: got 1, want 2
exit status 1
FAIL bad                                         2.0 s   2 of 4 packages, T
     T: 1 tests passed, now TestD
skipped good.TestB: b_test.go:2: this kernel has none
FAILED bad.TestC
FAILED bad
1 tests and subtests passed, 1 skipped; failed, with packages: 2; T
`

func TestReport(t *testing.T) {
	var b bytes.Buffer
	r := newReport(&b, 4, false)
	r.follow(strings.NewReader(events))
	r.underWay()
	r.sum()
	got := regexp.MustCompile(`\b\d+s\b`).ReplaceAllString(b.String(), "T")
	if d := cmp.Diff(reported, got); d != "" {
		t.Error(d)
	}
}

// TestForeignOutput shows what is not of go test as it is.
func TestForeignOutput(t *testing.T) {
	var b bytes.Buffer
	newReport(&b, 1, false).follow(strings.NewReader("go: no such tool\nmore\n"))
	if !strings.HasPrefix(b.String(), "go: no such tool\nmore\n") {
		t.Errorf("%q", b.String())
	}
}
