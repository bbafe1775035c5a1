// Package tig stands in for one of nerdctl's own test support, which the Go proxy does not
// have, and which nerdctl is not built without.
package tig

// T is what nerdctl's helpers want of a test.
type T interface {
	Helper()
	FailNow()
	Log(args ...any)
	Name() string
	TempDir() string
}
