package nstest

import (
	"testing"

	"rootlesskit/internal/kernel"
)

// Needs skips a test of kernel features that this kernel does not have.
func Needs(t testing.TB, features ...*kernel.Feature) {
	t.Helper()
	for _, f := range features {
		if err := f.Check(); err != nil {
			t.Skip(err)
		}
	}
}
