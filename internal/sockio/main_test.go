package sockio_test

import (
	"testing"

	"rootlesskit/internal/nstest"
)

// Main fails the run where a test has left a descriptor open.
func TestMain(m *testing.M) { nstest.Main(m) }
