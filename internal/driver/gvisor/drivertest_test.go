package gvisor

import (
	"context"
	"net/netip"
	"testing"

	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/drivertest"
)

// TestPorts runs the suite that all port drivers pass, on both MTUs.
func TestPorts(t *testing.T) {
	for name, mtu := range map[string]int{"MTU65520": 65520, "MTU1500": 1500} {
		t.Run(name, func(t *testing.T) {
			drivertest.RunPorts(t, func(t *testing.T) drivertest.Setup { return attachedSetup(t, mtu) })
		})
	}
}

func attachedSetup(t *testing.T, mtu int) drivertest.Setup {
	t.Helper()
	sb, child := drivertest.Sandbox(t)
	network, err := New(driver.NetworkConfig{
		MTU: mtu, CIDR: netip.MustParsePrefix("10.0.2.0/24"), Ifname: "tap0", IPv6: true, DisableHostLoopback: true,
	}, flags{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	link, err := network.Attach(ctx, sb)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := network.Wait(); err != nil {
			t.Errorf("the network ended with: %v", err)
		}
	})
	return drivertest.Setup{
		Ports: network.(*Network).Ports(), Sandbox: sb, Child: child, Link: link,
		Lacks: []drivertest.Ability{drivertest.SameLoopback},
	}
}
