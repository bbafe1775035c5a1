package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"unicode"

	"github.com/urfave/cli/v3"

	"rootlesskit/internal/driver"
	"rootlesskit/internal/kernel"
)

const (
	minMTU      = 68 // RFC 791; ETH_MIN_MTU of the kernel
	maxMTU      = 65521
	defaultCIDR = "10.0.2.0/24"
)

// sharedNetworkConfig checks the flags that all networks share.
func (a *app) sharedNetworkConfig(c *cli.Command, network, ports string, log *slog.Logger) (driver.NetworkConfig, error) {
	role := a.registry.Network(network) // nil for the host's network and for a retired one
	isolated := network == driver.Host || role != nil && role.Isolated
	cfg := driver.NetworkConfig{
		MTU:                 c.Int("mtu"),
		Ifname:              c.String("ifname"),
		IPv6:                c.Bool("ipv6"),
		DisableHostLoopback: c.Bool("disable-host-loopback"),
		Detached:            c.Bool("detach-netns"),
		Ports:               ports,
	}
	err := checkDevice(cfg)
	if err != nil {
		return cfg, err
	}
	if isolated && cfg.Ifname != "" {
		return cfg, fmt.Errorf("ifname cannot be specified for --net=%s", network)
	}
	if cfg.CIDR, err = parseCIDR(c.String("cidr")); err != nil {
		return cfg, err
	}
	if c.String("cidr") != "" && (role == nil || !role.CIDR) {
		return cfg, fmt.Errorf("custom cidr is not supported for --net=%s", network)
	}
	if isolated {
		warnIsolated(network, cfg, log)
	} else {
		a.warnConnected(network, cfg, log)
	}
	if cfg.IPv6 && (role == nil || !role.IPv6) {
		log.Warn(fmt.Sprintf("--net=%s has no IPv6, ignoring --ipv6", network))
	} else if cfg.IPv6 {
		if err := kernel.IPv6.Check(); err != nil {
			return cfg, fmt.Errorf("--ipv6: %w", err)
		}
	}
	return cfg, nil
}

// checkDevice checks the flags about the network device inside.
func checkDevice(cfg driver.NetworkConfig) error {
	switch {
	case cfg.MTU > maxMTU:
		return fmt.Errorf("mtu must be <= %d, got %d", maxMTU, cfg.MTU)
	case cfg.MTU < 0:
		return fmt.Errorf("mtu must be between 0 and %d, got %d", maxMTU, cfg.MTU)
	case cfg.MTU > 0 && cfg.MTU < minMTU:
		return fmt.Errorf("mtu must be >= %d, got %d", minMTU, cfg.MTU)
	case strings.Contains(cfg.Ifname, "/"):
		return errors.New("ifname must not contain \"/\"")
	case len(cfg.Ifname) > 15: // IFNAMSIZ, netdevice(7), less the final zero
		return fmt.Errorf("ifname must have at most 15 characters, got %q", cfg.Ifname)
	case cfg.Ifname == "lo", cfg.Ifname == ".", cfg.Ifname == "..", strings.ContainsFunc(cfg.Ifname, notInIfname):
		return fmt.Errorf("ifname must be a device name without colons and blanks, other than lo, got %q", cfg.Ifname)
	}
	return nil
}

// notInIfname follows dev_valid_name of the kernel (net/core/dev.c).
func notInIfname(r rune) bool { return r == ':' || unicode.IsSpace(r) }

func warnIsolated(network string, cfg driver.NetworkConfig, log *slog.Logger) {
	if cfg.DisableHostLoopback {
		log.Warn(fmt.Sprintf("--disable-host-loopback has no effect with --net=%s, ignoring it", network))
	}
	if cfg.MTU != 0 {
		log.Warn(fmt.Sprintf("unsupported mtu for --net=%s: %d", network, cfg.MTU))
	}
}

func (a *app) warnConnected(network string, cfg driver.NetworkConfig, log *slog.Logger) {
	if !cfg.DisableHostLoopback {
		log.Warn("specifying --disable-host-loopback is highly recommended to prohibit connecting to 127.0.0.1:* on the host namespace")
	}
	if text := a.leak(network); text != "" && cfg.DisableHostLoopback {
		log.Warn(text)
	}
	if text, fix := a.overlap(network, cfg.CIDR); text != "" {
		log.Warn(text + "; " + fix)
	}
}

// leak says what --disable-host-loopback fails to refuse with a network; empty:
// nothing.
func (a *app) leak(network string) string {
	role := a.registry.Network(network)
	if role == nil || role.Leak == "" {
		return ""
	}
	return role.Leak + "; " + enumerate(a.registry.Isolating(), "and") + " refuse that"
}

// parseCIDR parses --cidr; the empty string means the default network.
func parseCIDR(s string) (netip.Prefix, error) {
	if s == "" {
		s = defaultCIDR
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("invalid CIDR address: %s", s)
	}
	if p != p.Masked() {
		return p, fmt.Errorf("cidr must be like %s, not like %s", p.Masked(), s)
	}
	if a := p.Addr(); a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || p.Contains(netip.IPv4Unspecified()) {
		return p, fmt.Errorf("cidr must be a network of ordinary addresses, such as 10.0.2.0/24: %s is loopback, multicast, link-local or unspecified", s)
	}
	// The address plans put the child at .100 and helpers at .1 to .3.
	if !p.Addr().Is4() || p.Bits() > 24 {
		return p, fmt.Errorf("cidr must be an IPv4 network of at least 128 addresses such as 10.0.2.0/24, got %s", s)
	}
	return p, nil
}
