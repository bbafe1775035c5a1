package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"rootlesskit/internal/launch"
)

// auto is the value of --net and --port-driver that leaves the choice to this
// program.
const auto = "auto"

// candidate is a driver that auto may choose, and what speaks for it.
type candidate struct{ name, why string }

// The candidates, best first, by the figures of bench/. implicit is none of
// them: what it publishes, nobody asked for.
var (
	autoNetworks = []candidate{
		{"gvisor-tap-vsock", "embedded, and the fastest outbound"},
		{"slirp4netns", "the fastest outbound of those that are present"},
		{"pasta", "present"},
	}
	autoPortDrivers = []candidate{
		{"builtin", "the fastest"},
		{"pesto", "pasta's own"},
		{"none", "no other works with the network"},
	}
)

// chooseDrivers replaces auto by the best drivers that are present and work
// together, and says why.
func (a *app) chooseDrivers(c *cli.Command, cfg *launch.Config) error {
	networks, ports := autoNetworks, autoPortDrivers
	if c.Bool("disable-host-loopback") {
		networks = isolatingFirst(networks)
	}
	if name := c.String("net"); name != auto {
		networks = []candidate{{name: name}}
	}
	if name := c.String("port-driver"); name != auto {
		ports = []candidate{{name: name}}
	}
	if len(networks) == 1 && (len(ports) == 1 || !slices.Contains(networkNames, networks[0].name)) {
		return nil
	}
	var failed []string
	for _, n := range networks {
		for _, p := range ports {
			if checkPortDriver(p.name, n.name) != nil {
				continue
			}
			err := a.tryDrivers(c, n.name, p.name)
			if err == nil {
				return a.choose(c, cfg, n, p, failed)
			}
			failed = append(failed, fmt.Sprintf("%s with %s: %v", n.name, p.name, err))
		}
	}
	if len(failed) == 0 { // the driver that was asked for does not go with any
		return a.checkPortDriver(ports[0].name, networks[0].name)
	}
	return errors.New("no drivers work here: " + strings.Join(failed, "; "))
}

// isolatingFirst prefers the networks with which --disable-host-loopback holds.
func isolatingFirst(networks []candidate) []candidate {
	networks = slices.Clone(networks)
	slices.SortStableFunc(networks, func(a, b candidate) int {
		return cmp.Compare(len(leak(a.name)), len(leak(b.name)))
	})
	return networks
}

// leak says what --disable-host-loopback does not refuse with a network; empty: it
// holds.
func leak(network string) string {
	if network != "slirp4netns" {
		return ""
	}
	return "with --net=slirp4netns a program inside that writes frames to the network device itself reaches the host's 127.0.0.1" +
		" in spite of --disable-host-loopback; gvisor-tap-vsock and pasta refuse that"
}

// tryDrivers finds out whether drivers are there, and programs that they need.
func (a *app) tryDrivers(c *cli.Command, network, ports string) error {
	if network == "host" {
		return nil
	}
	d := a.registry.Network(network)
	if d == nil {
		return errors.New("the network driver was left out at build time")
	}
	shared, err := sharedNetworkConfig(c, network, d, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	net, err := d.New(shared, c)
	if err != nil || ports == "none" {
		return err
	}
	p := a.registry.PortDriver(ports)
	if p == nil {
		return errors.New("the port driver was left out at build time")
	}
	_, err = p.New(net, c)
	return err
}

func (a *app) choose(c *cli.Command, cfg *launch.Config, network, ports candidate, failed []string) error {
	text := func(why string) string {
		if len(failed) > 0 {
			why += "; passed over: " + strings.Join(failed, "; ")
		}
		return why
	}
	log := cfg.Log.With()
	if network.why != "" {
		cfg.NetworkName, cfg.NetworkReason = network.name, text(network.why)
		log = log.With("net", network.name, "reason", cfg.NetworkReason)
	}
	if ports.why != "" {
		cfg.PortsReason = text(ports.why)
		log = log.With("port-driver", ports.name, "port-driver-reason", cfg.PortsReason)
	}
	log.Info("chose drivers")
	return errors.Join(c.Set("net", network.name), c.Set("port-driver", ports.name))
}
