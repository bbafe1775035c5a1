package builtin_test

import (
	"testing"

	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/builtin"
	"rootlesskit/internal/driver/drivertest"
	"rootlesskit/internal/driver/relayed"
	"rootlesskit/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m, relayed.Handlers) }

func TestPorts(t *testing.T) {
	drivertest.RunPorts(t, setup)
}

func setup(t *testing.T) drivertest.Setup {
	sb, child := drivertest.Sandbox(t)
	ports, err := builtin.New(driver.PortsConfig{}, driver.FlagValues(relayed.Flags(), nil))
	if err != nil {
		t.Fatal(err)
	}
	return drivertest.Setup{Ports: ports, Sandbox: sb, Child: child}
}
