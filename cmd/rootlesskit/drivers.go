package main

import (
	"fmt"
	"log/slog"

	"github.com/urfave/cli/v3"

	"rootlesskit/api"
	"rootlesskit/internal/driver"
	"rootlesskit/internal/launch"
)

// chooseDrivers puts the names of the drivers into the configuration, with the
// reasons if auto chose them.
func (a *app) chooseDrivers(c *cli.Command, cfg *launch.Config) error {
	want := driver.Want{Network: c.String("net"), Ports: c.String("port-driver"), Isolate: c.Bool("disable-host-loopback")}
	choice, err := driver.Choose(a.registry, want, func(network, ports string) error {
		return a.tryDrivers(c, network, ports)
	})
	if err != nil {
		return unknownName(err)
	}
	cfg.NetworkName, cfg.NetworkReason, cfg.PortsName, cfg.PortsReason = choice.Network, choice.NetworkReason, choice.Ports, choice.PortsReason
	log := cfg.Log.With()
	if cfg.NetworkReason != "" {
		log = log.With("net", cfg.NetworkName, "reason", cfg.NetworkReason)
	}
	if cfg.PortsReason != "" {
		log = log.With("port-driver", cfg.PortsName, "port-driver-reason", cfg.PortsReason)
	}
	if cfg.NetworkReason+cfg.PortsReason != "" {
		log.Info("chose drivers")
	}
	return nil
}

// tryDrivers checks that the drivers and the programs that they need exist.
func (a *app) tryDrivers(c *cli.Command, network, ports string) error {
	if network == driver.Host {
		return nil
	}
	shared, err := a.sharedNetworkConfig(c, network, ports, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	n, err := a.registry.NewNetwork(network, shared, c)
	if err != nil {
		return err
	}
	_, err = a.registry.NewPorts(ports, n, sharedPortsConfig(c), c)
	return err
}

// checkDrivers checks the names of the drivers, and whether the drivers go together.
func (a *app) checkDrivers(_ *cli.Command, cfg *launch.Config) error {
	if err := a.registry.CheckNetwork(cfg.NetworkName); err != nil {
		return unknownName(err)
	}
	return unknownName(a.registry.CheckPair(cfg.NetworkName, cfg.PortsName))
}

func (a *app) networkConfig(c *cli.Command, cfg *launch.Config) error {
	shared, err := a.sharedNetworkConfig(c, cfg.NetworkName, cfg.PortsName, cfg.Log)
	if err != nil {
		return err
	}
	if role := a.registry.Network(cfg.NetworkName); role != nil {
		cfg.Isolated = role.Isolated
	}
	cfg.Network, err = a.registry.NewNetwork(cfg.NetworkName, shared, c)
	return err
}

func (a *app) portConfig(c *cli.Command, cfg *launch.Config) (err error) {
	name := cfg.PortsName
	if cfg.Publish, err = parsePublish(c.StringSlice("publish")); err != nil {
		return err
	}
	if err := a.checkStrict(c, name); err != nil {
		return err
	}
	role := a.registry.Ports(name)
	if (name == driver.NoPorts || role != nil && role.Unasked) && len(cfg.Publish) > 0 {
		return fmt.Errorf("port driver %q does not support publishing ports", name)
	}
	cfg.Ports, err = a.registry.NewPorts(name, cfg.Network, sharedPortsConfig(c), c)
	return err
}

// checkStrict refuses flags that only one port driver knows, if another is in use:
// the user would miss their effect.
func (a *app) checkStrict(c *cli.Command, ports string) error {
	for owner, f := range a.registry.Flags {
		if f.Strict && owner != ports && c.IsSet(f.Name) && c.String(f.Name) != "" {
			return fmt.Errorf("%s requires --port-driver=%s, got %q", f.Name, owner, ports)
		}
	}
	return nil
}

func sharedPortsConfig(c *cli.Command) driver.PortsConfig {
	return driver.PortsConfig{DisableHostLoopback: c.Bool("disable-host-loopback")}
}

func parsePublish(specs []string) ([]api.PortSpec, error) {
	var out []api.PortSpec
	for _, s := range specs {
		spec, err := api.ParsePortSpec(s)
		if err != nil {
			return nil, err
		}
		// Drivers refuse the protocols that none of them has.
		if err := spec.Validate(); err != nil && spec.Proto.Transport() != api.SCTP {
			return nil, err
		}
		out = append(out, spec)
	}
	return out, nil
}
