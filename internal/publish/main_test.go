package publish

import (
	"testing"

	"rootlesskit/internal/nstest"
	"rootlesskit/internal/sourceip"
)

func TestMain(m *testing.M) { nstest.Main(m, sourceip.Handlers) }
