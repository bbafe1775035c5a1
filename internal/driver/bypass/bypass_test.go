package bypass

import (
	"testing"

	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/drivertest"
	"rootlesskit/internal/driver/relayed"
	"rootlesskit/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m, relayed.Handlers, Handlers) }

// TestPorts has no command to supervise: the base alone serves. Native ports need
// one, and are tested with the launcher.
func TestPorts(t *testing.T) {
	drivertest.RunPorts(t, func(t *testing.T) drivertest.Setup {
		sb, child := drivertest.Sandbox(t)
		ports, err := New(driver.PortsConfig{}, driver.FlagValues(Driver().Flags, nil))
		if err != nil {
			t.Fatal(err)
		}
		return drivertest.Setup{Ports: ports, Sandbox: sb, Child: child}
	})
}
