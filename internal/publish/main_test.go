package publish

import (
	"testing"

	"rootlesskit/internal/nstest"
	"rootlesskit/internal/sourceip"
	"rootlesskit/internal/userlandproxy"
)

func TestMain(m *testing.M) { nstest.Main(m, sourceip.Handlers, userlandproxy.Handlers) }
