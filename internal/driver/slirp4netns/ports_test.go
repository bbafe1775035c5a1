package slirp4netns

import (
	"context"
	"net/netip"
	"testing"

	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/drivertest"
	"rootlesskit/internal/nstest"
	"rootlesskit/internal/sourceip"
)

func TestMain(m *testing.M) { nstest.Main(m, sourceip.Handlers) }

// flags are the driver's own flags at their defaults, unless set.
type flags map[string]string

func (f flags) String(name string) string {
	if v, ok := f[name]; ok {
		return v
	}
	return map[string]string{
		"slirp4netns-binary": "slirp4netns", "slirp4netns-sandbox": "false", "slirp4netns-seccomp": "false",
	}[name]
}

func (f flags) Bool(string) bool { return false }

func config() driver.NetworkConfig {
	return driver.NetworkConfig{MTU: 65520, CIDR: netip.MustParsePrefix("10.0.2.0/24"), Ifname: "tap0"}
}

// attach starts the drivers in a new namespace.
func attach(t *testing.T, cfg driver.NetworkConfig, f flags) (*Network, drivertest.Setup) {
	t.Helper()
	network, err := New(cfg, f)
	if err != nil {
		t.Fatal(err)
	}
	ports, err := NewPorts(network, f)
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
		Ports: ports, Sandbox: sb, Child: child, Link: link,
		Lacks: []drivertest.Ability{
			drivertest.Reset, drivertest.Refuse, // it ends the connection in order
			drivertest.Burst, // its backlog is one connection
			drivertest.Cut, drivertest.DualStack, drivertest.ReplyAddress,
		},
	}
}

func TestPorts(t *testing.T) {
	drivertest.RunPorts(t, func(t *testing.T) drivertest.Setup {
		_, setup := attach(t, config(), nil)
		return setup
	})
}
