package relay

import (
	"testing"

	"rootlesskit/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }
