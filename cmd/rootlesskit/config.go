package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"rootlesskit/api"
	"rootlesskit/internal/driver"
	"rootlesskit/internal/launch"
	"rootlesskit/internal/mounts"
	"rootlesskit/internal/userns"
)

const (
	copyUpMode = "tmpfs+symlink"
	maxMTU     = 65521
)

// config turns the flags into the run's configuration. Whatever can be wrong
// with them is found here, before anything is touched.
func (a *app) config(c *cli.Command) (launch.Config, error) {
	cfg := launch.Config{
		Command:         a.command,
		StateDir:        c.String("state-dir"),
		NetworkName:     c.String("net"),
		IPv6:            c.Bool("ipv6"),
		DetachNetns:     c.Bool("detach-netns"),
		Propagation:     c.String("propagation"),
		CopyUp:          c.StringSlice("copy-up"),
		PIDNS:           c.Bool("pidns"),
		CgroupNS:        c.Bool("cgroupns"),
		UTSNS:           c.Bool("utsns"),
		IPCNS:           c.Bool("ipcns"),
		EvacuateCgroup2: c.String("evacuate-cgroup2"),
		Inherited:       a.inherited,
		Debug:           c.Bool("debug"),
		Log:             a.newLog(c.Bool("debug")),
	}
	for _, step := range []func(*cli.Command, *launch.Config) error{
		processConfig, notifyConfig, mountConfig, a.chooseDrivers, a.checkDrivers, a.networkConfig, a.portConfig,
	} {
		if err := step(c, &cfg); err != nil {
			return launch.Config{}, err
		}
	}
	return cfg, nil
}

func processConfig(c *cli.Command, cfg *launch.Config) (err error) {
	if cfg.SubIDSource, err = userns.ParseSource(c.String("subid-source")); err != nil {
		return fmt.Errorf("failed to setup UID/GID map: failed to compute uid/gid map: %w", err)
	}
	if cfg.EvacuateCgroup2 != "" {
		if !cfg.CgroupNS {
			return errors.New("evacuate-cgroup2 requires --cgroupns")
		}
		if !cfg.PIDNS {
			return errors.New("evacuate-cgroup2 requires --pidns")
		}
	}
	switch mode := c.String("reaper"); mode {
	case "auto", "":
		cfg.Reaper = cfg.PIDNS
	case "true":
		if !cfg.PIDNS {
			return errors.New("reaper requires --pidns")
		}
		cfg.Reaper = true
	case "false":
	default:
		return fmt.Errorf("unknown reaper mode: %s", mode)
	}
	return nil
}

// notifyConfig decides who tells the service manager that the service is
// ready. A command that does so itself (dockerd) is ready later than the ports
// are, so it has precedence unless the user says otherwise.
func notifyConfig(c *cli.Command, cfg *launch.Config) error {
	switch mode := c.String("sdnotify"); mode {
	case "command", "":
	case "launcher":
		cfg.NotifySocket = os.Getenv("NOTIFY_SOCKET")
	default:
		return fmt.Errorf("unknown sdnotify mode: %q (expected command or launcher)", mode)
	}
	return nil
}

func mountConfig(c *cli.Command, cfg *launch.Config) error {
	if mode := c.String("copy-up-mode"); mode != copyUpMode && mode != "" {
		return fmt.Errorf("unknown copy-up mode: %s", mode)
	}
	if !mounts.KnownPropagation(cfg.Propagation) {
		cfg.Log.Warn("setting the propagation to an unknown value is not supported, ignoring it", "propagation", cfg.Propagation)
	}
	if len(cfg.CopyUp) > 0 && mounts.IsShared(cfg.Propagation) {
		return fmt.Errorf("propagation %s does not support copy-up driver %s", cfg.Propagation, copyUpMode)
	}
	return mounts.CheckCopyUp(cfg.CopyUp)
}

// checkDrivers judges the names of the drivers, alone and together.
func (a *app) checkDrivers(c *cli.Command, cfg *launch.Config) error {
	if !slices.Contains(networkNames, cfg.NetworkName) {
		return unknownName("network mode", cfg.NetworkName, append([]string{"host", auto}, registeredNetworks(a.registry)...))
	}
	return a.checkPortDriver(c.String("port-driver"), cfg.NetworkName)
}

// checkPortDriver is the function of that name, with advice.
func (a *app) checkPortDriver(name, network string) error {
	err := checkPortDriver(name, network)
	if errors.Is(err, errUnknownPortDriver) {
		return unknownName("port driver", name, append([]string{"none", auto}, registeredPorts(a.registry)...))
	}
	return err
}

func (a *app) networkConfig(c *cli.Command, cfg *launch.Config) error {
	name := cfg.NetworkName
	d := a.registry.Network(name)
	net, err := sharedNetworkConfig(c, name, d, cfg.Log)
	if err != nil {
		return err
	}
	switch {
	case name == "host":
		return nil
	case name == "vpnkit":
		return errors.New("network driver \"vpnkit\" is retired: use gvisor-tap-vsock (embedded), slirp4netns or pasta")
	case d == nil:
		return fmt.Errorf("network driver %q was left out at build time: this binary has %s", name,
			strings.Join(append([]string{"host"}, registeredNetworks(a.registry)...), ", "))
	}
	cfg.Network, err = d.New(net, c)
	return err
}

var networksWithoutCIDR = []string{"host", "none", "vpnkit", "lxc-user-nic"}

// sharedNetworkConfig judges the flags that all networks share. d is nil for
// host and for a driver that was left out of the build.
func sharedNetworkConfig(c *cli.Command, name string, d *driver.NetworkDriver, log *slog.Logger) (driver.NetworkConfig, error) {
	var zero driver.NetworkConfig
	isolated := name == "host" || name == "none"
	net := driver.NetworkConfig{
		MTU:                 c.Int("mtu"),
		Ifname:              c.String("ifname"),
		IPv6:                c.Bool("ipv6"),
		DisableHostLoopback: c.Bool("disable-host-loopback"),
		Detached:            c.Bool("detach-netns"),
	}
	if net.MTU > maxMTU {
		return zero, fmt.Errorf("mtu must be <= %d, got %d", maxMTU, net.MTU)
	}
	if net.MTU < 0 {
		return zero, fmt.Errorf("mtu must be between 0 and %d, got %d", maxMTU, net.MTU)
	}
	if strings.Contains(net.Ifname, "/") {
		return zero, errors.New("ifname must not contain \"/\"")
	}
	if len(net.Ifname) > 15 { // IFNAMSIZ, netdevice(7), less the final zero
		return zero, fmt.Errorf("ifname must have at most 15 characters, got %q", net.Ifname)
	}
	if isolated && net.Ifname != "" {
		return zero, fmt.Errorf("ifname cannot be specified for --net=%s", name)
	}
	cidr, err := parseCIDR(c.String("cidr"))
	if err != nil {
		return zero, err
	}
	if c.String("cidr") != "" && slices.Contains(networksWithoutCIDR, name) {
		return zero, fmt.Errorf("custom cidr is not supported for --net=%s", name)
	}
	net.CIDR = cidr
	if isolated && net.DisableHostLoopback {
		log.Warn(fmt.Sprintf("--disable-host-loopback has no meaning for --net=%s, ignoring it", name))
	}
	if isolated && net.MTU != 0 {
		log.Warn(fmt.Sprintf("unsupported mtu for --net=%s: %d", name, net.MTU))
	}
	if !isolated && !net.DisableHostLoopback {
		log.Warn("specifying --disable-host-loopback is highly recommended to prohibit connecting to 127.0.0.1:* on the host namespace")
	}
	if text := leak(name); text != "" && net.DisableHostLoopback {
		log.Warn(text)
	}
	if text, fix := overlap(name, cidr); text != "" {
		log.Warn(text + "; " + fix)
	}
	if net.IPv6 && (d == nil || !d.IPv6) {
		log.Warn(fmt.Sprintf("--net=%s has no IPv6, ignoring --ipv6", name))
	}
	if d != nil {
		net.IPv6 = net.IPv6 && d.IPv6
		net.MTU = cmp.Or(net.MTU, d.MTU)
		net.Ifname = cmp.Or(net.Ifname, d.Ifname)
	}
	return net, nil
}

// parseCIDR reads --cidr; empty is the default network.
func parseCIDR(s string) (netip.Prefix, error) {
	if s == "" {
		s = "10.0.2.0/24"
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("invalid CIDR address: %s", s)
	}
	if p != p.Masked() {
		return p, fmt.Errorf("cidr must be like %s, not like %s", p.Masked(), s)
	}
	if a := p.Addr(); a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || p.Contains(netip.IPv4Unspecified()) {
		return p, fmt.Errorf("cidr must be a network for hosts, such as 10.0.2.0/24: %s is loopback, multicast, link-local or unspecified", s)
	}
	// The address plans put the child at .100 and helpers at .1 to .3.
	if !p.Addr().Is4() || p.Bits() > 24 {
		return p, fmt.Errorf("cidr must be an IPv4 network of at least 128 addresses such as 10.0.2.0/24, got %s", s)
	}
	return p, nil
}

func (a *app) portConfig(c *cli.Command, cfg *launch.Config) (err error) {
	name := c.String("port-driver")
	if cfg.Publish, err = parsePublish(c.StringSlice("publish")); err != nil {
		return err
	}
	if name != "bypass4netns" && c.String("bypass4netnsd-socket") != "" {
		return fmt.Errorf("bypass4netnsd-socket requires --port-driver=bypass4netns, got %q", name)
	}
	if (name == "none" || name == "implicit") && len(cfg.Publish) > 0 {
		return fmt.Errorf("port driver %q does not support publishing ports", name)
	}
	if name == "none" {
		return nil
	}
	if err := checkSourceIP(c, name); err != nil {
		return err
	}
	d := a.registry.PortDriver(name)
	if d == nil {
		return fmt.Errorf("port driver %q was left out at build time: this binary has %s", name,
			strings.Join(append([]string{"none"}, registeredPorts(a.registry)...), ", "))
	}
	cfg.Ports, err = d.New(cfg.Network, c)
	return err
}

// errUnknownPortDriver is of a name that upstream does not know either.
var errUnknownPortDriver = errors.New("unknown port driver")

// checkPortDriver judges whether a port driver goes with a network, in the
// order in which upstream does: clients know the texts.
func checkPortDriver(name, network string) error {
	known := slices.Contains(portDriverNames, name)
	switch {
	case name == "pasta":
		return errors.New("unknown port driver \"pasta\": did you mean \"pesto\"?")
	case network == "host" && name != "none":
		if !known {
			return errUnknownPortDriver
		}
		return errors.New("port driver requires non-host network")
	case network == "none" && name != "none" && name != "builtin":
		return errors.New("network \"none\" requires either port driver \"none\" or \"builtin\"")
	case !known:
		return errUnknownPortDriver
	case network == "pasta" && !slices.Contains([]string{"none", "implicit", "pesto"}, name):
		return errors.New("network \"pasta\" requires port driver \"none\" or \"implicit\" or \"pesto\"")
	case (name == "implicit" || name == "pesto") && network != "pasta":
		return fmt.Errorf("port driver %q requires --net=pasta", name)
	case name == "slirp4netns" && network != "slirp4netns":
		return errors.New("port driver requires slirp4netns network")
	case name == "gvisor-tap-vsock" && network != "gvisor-tap-vsock":
		return errors.New("port driver requires gvisor-tap-vsock network")
	}
	return nil
}

func checkSourceIP(c *cli.Command, portDriver string) error {
	backend := c.String("source-ip-transparent-backend")
	if (portDriver == "builtin" || portDriver == "bypass4netns") && !slices.Contains([]string{"auto", "nft", "iptables", ""}, backend) {
		return fmt.Errorf("unknown source-ip-transparent-backend: %s", backend)
	}
	return nil
}

func parsePublish(specs []string) ([]api.PortSpec, error) {
	var out []api.PortSpec
	for _, s := range specs {
		spec, err := api.ParsePortSpec(s)
		if err != nil {
			return nil, err
		}
		// A protocol that no driver has is theirs to refuse.
		if err := spec.Validate(); err != nil && !strings.HasPrefix(spec.Proto, "sctp") {
			return nil, err
		}
		out = append(out, spec)
	}
	return out, nil
}
