package main

import (
	"strconv"
	"strings"

	"github.com/urfave/cli/v3"

	"rootlesskit/internal/driver"
)

// flags returns every flag of the program. A driver declares its own flags and
// reads them; all are accepted, whatever drivers are in use.
func flags(reg *driver.Registry) []cli.Flag {
	var all []cli.Flag
	for _, group := range [][]cli.Flag{
		miscFlags(), mountFlags(), networkFlags(reg), portFlags(reg), driverFlags(reg), processFlags(), stateFlags(),
	} {
		all = append(all, group...)
	}
	return all
}

func miscFlags() []cli.Flag {
	const category = "Misc"
	return []cli.Flag{
		&cli.BoolFlag{Name: "check", Category: category, Usage: "check whether this host can do a run with these options, print each problem with its fix, and exit: with 1 if a run could not succeed"},
		&cli.BoolFlag{Name: "debug", Category: category, Usage: "log debug messages"},
		&cli.BoolFlag{Name: "json", Category: category, Usage: "with --check, print JSON"},
		&cli.StringFlag{Name: "print-semver", Category: category, Usage: "print a component of the version as a decimal integer and exit [major, minor, patch]"},
	}
}

func mountFlags() []cli.Flag {
	const category = "Mount"
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "copy-up", Category: category, Usage: "make the directory `DIR` writable by mounting a tmpfs with symlinks to its contents, e.g. \"--copy-up=/etc\" (usually needed with a network other than host); /tmp is refused"},
		&cli.StringFlag{Name: "copy-up-mode", Category: category, Value: copyUpMode, Usage: "`MODE` of --copy-up [" + copyUpMode + "]"},
		&cli.StringFlag{Name: "propagation", Category: category, Value: "rprivate", Usage: "mount propagation `MODE` of / [private, rprivate, shared, rshared, slave, rslave]; the shared modes exclude --copy-up"},
	}
}

func networkFlags(reg *driver.Registry) []cli.Flag {
	const category = "Network"
	names := append([]string{driver.Host, driver.AutoName}, reg.Networks()...)
	mtu := func(n *driver.NetworkRole) string { return strconv.Itoa(n.MTU) }
	ifname := func(n *driver.NetworkRole) string { return n.Ifname }
	cidr := enumerate(networksThat(reg, func(n *driver.NetworkRole) bool { return n.CIDR }), "and")
	ipv6 := strings.Join(networksThat(reg, func(n *driver.NetworkRole) bool { return n.IPv6 }), ", ")
	return []cli.Flag{
		&cli.StringFlag{Name: "net", Category: category, Value: driver.Host, Usage: "network `DRIVER` [" + strings.Join(names, ", ") + "]; auto chooses among those that work here, and logs why"},
		&cli.IntFlag{Name: "mtu", Category: category, Usage: "MTU in `BYTES`, at most 65521; 0 is the driver's default (" + defaults(reg, mtu) + ")"},
		&cli.StringFlag{Name: "cidr", Category: category, Usage: "`NETWORK` inside, for " + cidr + " (default: " + defaultCIDR + ")"},
		&cli.StringFlag{Name: "ifname", Category: category, Usage: "`NAME` of the network interface (default: " + defaults(reg, ifname) + ")"},
		&cli.BoolFlag{Name: "disable-host-loopback", Category: category, Usage: "prohibit connections from inside to 127.0.0.1 of the host"},
		&cli.BoolFlag{Name: "ipv6", Category: category, Usage: "give the network IPv6 (" + ipv6 + "); published ports do not need it"},
		&cli.BoolFlag{Name: "detach-netns", Category: category, Usage: "leave the command in the host's network namespace; the new one is $ROOTLESSKIT_STATE_DIR/netns"},
	}
}

// driverFlags are the drivers' own flags.
func driverFlags(reg *driver.Registry) []cli.Flag {
	var all []cli.Flag
	for _, f := range reg.Flags {
		usage := f.Usage
		if f.Values != nil {
			usage += " [" + strings.Join(f.Values, ", ") + "]"
		}
		if f.Kind == driver.Bool {
			all = append(all, &cli.BoolFlag{Name: f.Name, Category: f.Category, Value: f.Default == "true", Usage: usage, Hidden: f.Hidden})
		} else {
			all = append(all, &cli.StringFlag{Name: f.Name, Category: f.Category, Value: f.Default, Usage: usage, Hidden: f.Hidden, TakesFile: f.Kind == driver.File})
		}
	}
	return all
}

func portFlags(reg *driver.Registry) []cli.Flag {
	const category = "Port"
	names := append([]string{driver.NoPorts, driver.AutoName}, reg.PortDrivers()...)
	return []cli.Flag{
		&cli.StringFlag{Name: "port-driver", Category: category, Value: driver.NoPorts, Usage: "port `DRIVER` for a network other than host [" + strings.Join(names, ", ") + "]"},
		&cli.StringSliceFlag{Name: "publish", Aliases: []string{"p"}, Category: category, Usage: "publish a port; `SPEC` is [PARENTIP]:PARENTPORT:[CHILDIP:]CHILDPORT/PROTO, e.g. \"127.0.0.1:8080:80/tcp\"; 8080:80 means :8080:80/tcp, on all addresses"},
	}
}

func processFlags() []cli.Flag {
	const category = "Process"
	return []cli.Flag{
		&cli.BoolFlag{Name: "pidns", Category: category, Usage: "make a PID namespace"},
		&cli.BoolFlag{Name: "cgroupns", Category: category, Usage: "make a cgroup namespace"},
		&cli.BoolFlag{Name: "utsns", Category: category, Usage: "make a UTS namespace"},
		&cli.BoolFlag{Name: "ipcns", Category: category, Usage: "make an IPC namespace"},
		&cli.StringFlag{Name: "reaper", Category: category, Value: "auto", Usage: "run the command as a session leader, below a process that reaps orphans; needs --pidns [auto, true, false]; auto is the value of --pidns"},
		&cli.StringFlag{Name: "sdnotify", Category: category, Value: "command", Usage: "who tells the service manager that the service is ready, by sd_notify(3): the command, which gets NOTIFY_SOCKET, or the launcher, when the ports are published and the command has started [command, launcher]"},
		&cli.StringFlag{Name: "evacuate-cgroup2", Category: category, Usage: "move the processes of the cgroup (v2) into this sub-cgroup, enable the cgroup's controllers, and mount it at /sys/fs/cgroup, so that the command can make sub-cgroups; needs --pidns and --cgroupns"},
	}
}

func stateFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "state-dir", Category: "State", Usage: "state directory `DIR`, created if missing, and removed at the end; files of a killed run are removed at the start, but a directory with other files is refused (default: a temporary directory in $XDG_RUNTIME_DIR, $TMPDIR or /tmp)"},
		&cli.StringFlag{Name: "subid-source", Category: "SubID", Value: "auto", Usage: "where subordinate ids come from: dynamic executes getsubids(1), static reads /etc/subuid and /etc/subgid [auto, dynamic, static]; auto means dynamic if nsswitch.conf(5) says so"},
	}
}
