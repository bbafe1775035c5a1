package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v3"

	"rootlesskit/internal/driver"
)

const description = `RootlessKit runs a command as "fake root", using user_namespaces(7).

Examples:
  # a shell in a new user namespace and a mount namespace
  rootlesskit bash

  # make /etc writable
  rootlesskit --copy-up=/etc bash

  # a network namespace on the embedded network, and port 80 of it published as port 8080 of the host
  rootlesskit --copy-up=/etc --net=gvisor-tap-vsock --disable-host-loopback --port-driver=builtin -p 127.0.0.1:8080:80/tcp bash

/etc/subuid and /etc/subgid should give the user subordinate ids, see subuid(5).`

// The names of drivers that upstream's command line knows, in help's order.
var (
	networkNames    = []string{"host", "none", "pasta", "slirp4netns", "vpnkit", "lxc-user-nic", "gvisor-tap-vsock"}
	portDriverNames = []string{"none", "implicit", "builtin", "slirp4netns", "gvisor-tap-vsock", "pesto", "bypass4netns"}
)

// flags is every flag of the program. A driver reads its own ones through
// driver.Flags; all are accepted whatever drivers are in use.
func flags(reg *driver.Registry) []cli.Flag {
	var all []cli.Flag
	for _, group := range [][]cli.Flag{
		miscFlags(), mountFlags(), networkFlags(reg), driverFlags(), portFlags(reg), processFlags(), stateFlags(),
	} {
		all = append(all, group...)
	}
	return all
}

func miscFlags() []cli.Flag {
	const category = "Misc"
	return []cli.Flag{
		&cli.BoolFlag{Name: "check", Category: category, Usage: "say what on this host stands in the way of a run with these options, with a fix for each, and exit: with 1 if a run could not succeed"},
		&cli.BoolFlag{Name: "debug", Category: category, Usage: "log debug messages"},
		&cli.BoolFlag{Name: "json", Category: category, Usage: "with --check, print JSON"},
		&cli.StringFlag{Name: "print-semver", Category: category, Usage: "print a component of the version as a decimal integer and exit [major, minor, patch]"},
	}
}

func mountFlags() []cli.Flag {
	const category = "Mount"
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "copy-up", Category: category, Usage: "make a directory writable by mounting a tmpfs with symlinks to its contents, e.g. \"--copy-up=/etc\" (typically needed with a network other than host); /tmp is refused"},
		&cli.StringFlag{Name: "copy-up-mode", Category: category, Value: copyUpMode, Usage: "how --copy-up works [" + copyUpMode + "]"},
		&cli.StringFlag{Name: "propagation", Category: category, Value: "rprivate", Usage: "mount propagation of / [private, rprivate, shared, rshared, slave, rslave]; shared ones exclude --copy-up"},
	}
}

func networkFlags(reg *driver.Registry) []cli.Flag {
	const category = "Network"
	return []cli.Flag{
		&cli.StringFlag{Name: "net", Category: category, Value: "host", Usage: fmt.Sprintf("network driver [host, auto, %s]; auto chooses among those that work here and says why in the log", strings.Join(registeredNetworks(reg), ", "))},
		&cli.IntFlag{Name: "mtu", Category: category, Usage: "MTU in bytes, at most 65521; 0 is the driver's default (65520 for pasta, slirp4netns and gvisor-tap-vsock, else 1500)"},
		&cli.StringFlag{Name: "cidr", Category: category, Usage: "network of pasta, slirp4netns and gvisor-tap-vsock (default: 10.0.2.0/24)"},
		&cli.StringFlag{Name: "ifname", Category: category, Usage: "name of the network interface (default: tap0; eth0 for lxc-user-nic)"},
		&cli.BoolFlag{Name: "disable-host-loopback", Category: category, Usage: "prohibit connections to 127.0.0.1 of the host from inside"},
		&cli.BoolFlag{Name: "ipv6", Category: category, Usage: "give the network IPv6 (pasta, slirp4netns, gvisor-tap-vsock); published ports have IPv6 without it"},
		&cli.BoolFlag{Name: "detach-netns", Category: category, Usage: "leave the command in the host's network namespace; the new one is $ROOTLESSKIT_STATE_DIR/netns"},
	}
}

func driverFlags() []cli.Flag {
	const (
		gvisor = "Network [gvisor-tap-vsock]"
		lxc    = "Network [lxc-user-nic]"
		pasta  = "Network [pasta]"
		slirp  = "Network [slirp4netns]"
		vpnkit = "Network [vpnkit]"
	)
	return []cli.Flag{
		&cli.BoolFlag{Name: "allow-link-local", Category: gvisor, Hidden: true, Usage: "accepted: link-local addresses are open unless --disable-link-local"},
		&cli.BoolFlag{Name: "disable-link-local", Category: gvisor, Usage: "prohibit connections to link-local addresses (169.254.0.0/16, and fd00:ec2::/32 of the same purpose) from inside: where clouds serve metadata, and credentials of the machine"},
		&cli.StringFlag{Name: "lxc-user-nic-binary", Category: lxc, Usage: "path of the lxc-user-nic binary (default: on PATH, else where distributions have it)"},
		&cli.StringFlag{Name: "lxc-user-nic-bridge", Category: lxc, Value: "lxcbr0", Usage: "bridge that lxc-user-nic attaches to"},
		&cli.StringFlag{Name: "pasta-binary", Category: pasta, Value: "pasta", Usage: "path of the pasta binary"},
		&cli.StringFlag{Name: "pesto-binary", Category: pasta, Value: "pesto", Usage: "path of the pesto binary for --port-driver=pesto"},
		&cli.StringFlag{Name: "slirp4netns-binary", Category: slirp, Value: "slirp4netns", Usage: "path of the slirp4netns binary"},
		&cli.StringFlag{Name: "slirp4netns-sandbox", Category: slirp, Value: "false", Usage: "enable slirp4netns's sandbox [auto, true, false]; conflicts with --detach-netns, where auto is off"},
		&cli.StringFlag{Name: "slirp4netns-seccomp", Category: slirp, Value: "false", Usage: "enable slirp4netns's seccomp filter [auto, true, false]"},
		&cli.StringFlag{Name: "vpnkit-binary", Category: vpnkit, Value: "vpnkit", Usage: "accepted for compatibility; vpnkit is retired"},
	}
}

func portFlags(reg *driver.Registry) []cli.Flag {
	const category = "Port"
	return []cli.Flag{
		&cli.StringFlag{Name: "port-driver", Category: category, Value: "none", Usage: fmt.Sprintf("port driver for a network other than host [none, auto, %s]", strings.Join(registeredPorts(reg), ", "))},
		&cli.StringSliceFlag{Name: "publish", Aliases: []string{"p"}, Category: category, Usage: "publish ports, [PARENTIP]:PARENTPORT:[CHILDIP:]CHILDPORT/PROTO, e.g. \"127.0.0.1:8080:80/tcp\"; 8080:80 is :8080:80/tcp, on all addresses"},
		&cli.StringFlag{Name: "bypass4netnsd-socket", Category: category, Usage: "serve the API of bypass4netnsd at this path, through which container tools ask for native ports of containers; the command is a container engine then, and has none itself (bypass4netns port driver)"},
		&cli.BoolFlag{Name: "source-ip-transparent", Category: category, Value: true, Usage: "show the command the real address of clients (builtin and bypass4netns port drivers)"},
		&cli.StringFlag{Name: "source-ip-transparent-backend", Category: category, Value: "auto", Usage: "firewall used for --source-ip-transparent [auto, nft, iptables]"},
	}
}

func processFlags() []cli.Flag {
	const category = "Process"
	return []cli.Flag{
		&cli.BoolFlag{Name: "pidns", Category: category, Usage: "make a PID namespace"},
		&cli.BoolFlag{Name: "cgroupns", Category: category, Usage: "make a cgroup namespace"},
		&cli.BoolFlag{Name: "utsns", Category: category, Usage: "make a UTS namespace"},
		&cli.BoolFlag{Name: "ipcns", Category: category, Usage: "make an IPC namespace"},
		&cli.StringFlag{Name: "reaper", Category: category, Value: "auto", Usage: "run the command as a session leader below a reaper of orphans, needs --pidns [auto, true, false]; auto is the value of --pidns"},
		&cli.StringFlag{Name: "sdnotify", Category: category, Value: "command", Usage: "who tells a service manager that the service is ready, by sd_notify(3): the command, which gets NOTIFY_SOCKET, or the launcher, once the ports are published and the command was started [command, launcher]"},
		&cli.StringFlag{Name: "evacuate-cgroup2", Category: category, Usage: "move the processes of the cgroup (v2) into this sub-cgroup, and mount the cgroup at /sys/fs/cgroup with its controllers enabled for the command's own sub-cgroups; needs --pidns and --cgroupns"},
	}
}

func stateFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "state-dir", Category: "State", Usage: "state directory, made where missing and removed at the end; what a killed run left in it is removed at the start, and one with other files is refused (default: a temporary directory in $XDG_RUNTIME_DIR, $TMPDIR or /tmp)"},
		&cli.StringFlag{Name: "subid-source", Category: "SubID", Value: "auto", Usage: "where subordinate ids come from: dynamic executes getsubids(1), static reads /etc/subuid and /etc/subgid [auto, dynamic, static]; auto is dynamic where nsswitch.conf(5) says so"},
	}
}

func registeredNetworks(reg *driver.Registry) []string {
	var names []string
	for _, n := range networkNames {
		if reg.Network(n) != nil {
			names = append(names, n)
		}
	}
	return names
}

func registeredPorts(reg *driver.Registry) []string {
	var names []string
	for _, n := range portDriverNames {
		if reg.PortDriver(n) != nil {
			names = append(names, n)
		}
	}
	return names
}
