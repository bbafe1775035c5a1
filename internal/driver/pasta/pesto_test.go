package pasta

import (
	"bytes"
	"context"
	"net/netip"
	"testing"

	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/drivertest"
	"rootlesskit/internal/driver/relayed"
	"rootlesskit/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m, relayed.Handlers) }

// flags are the driver's own flags at their defaults, unless set.
func flags(set map[string]string) driver.Flags { return driver.FlagValues(Driver().Flags, set) }

func config() driver.NetworkConfig {
	return driver.NetworkConfig{MTU: 65520, CIDR: netip.MustParsePrefix("10.0.2.0/24"), Ifname: "tap0", IPv6: true, DisableHostLoopback: true}
}

// attach starts the drivers in a new namespace.
func attach(t *testing.T, cfg driver.NetworkConfig) (*Network, drivertest.Setup) {
	t.Helper()
	cfg.Ports = Pesto
	network, err := New(cfg, flags(nil))
	if err != nil {
		t.Fatal(err)
	}
	sb, child := drivertest.Sandbox(t)
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
	return network.(*Network), drivertest.Setup{
		Ports: network.(*Network).Ports(), Sandbox: sb, Child: child, Link: link,
		Lacks: []drivertest.Ability{drivertest.Cut, drivertest.CutFlows, drivertest.CrossingEnds, drivertest.SameLoopback},
	}
}

func TestPorts(t *testing.T) {
	drivertest.RunPorts(t, func(t *testing.T) drivertest.Setup {
		_, setup := attach(t, config())
		return setup
	})
}

// TestPortsOfHostWithoutIPv6: many hosts have no route of IPv6, but they have ::1. What
// reaches a published port there goes to the address of the namespace, and is answered.
func TestPortsOfHostWithoutIPv6(t *testing.T) {
	host := []string{
		"unshare", "--user", "--map-current-user", "--keep-caps", "--net",
		"sh", "-ec", `PATH=$PATH:/usr/sbin:/sbin; ip link set lo up; exec "$0" "$@"`,
	}
	cmd := nstest.Self(t, host...)
	cmd.Args = append(cmd.Args, "-test.run=^TestPorts$/^Running$/6$", "-test.v")
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("PASS: TestPorts/Running/UDP6/ManyClients")) {
		t.Errorf("%v:\n%s", err, out)
	}
}
