package userlandproxy

import (
	"net/netip"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// program is the base name of the proxy that Docker and other engines start.
const program = "docker-proxy"

// commandLine has the options of a proxy.
type commandLine struct {
	proto     int // unix.IPPROTO_TCP or unix.IPPROTO_UDP
	hostPort  uint16
	container netip.AddrPort
}

// parseCommandLine parses the text of /proc/PID/cmdline. It returns false if that
// is not the command line of a proxy, or does not name a container.
func parseCommandLine(text string) (commandLine, bool) {
	args := strings.Split(strings.TrimSuffix(text, "\x00"), "\x00")
	if path.Base(args[0]) != program {
		return commandLine{}, false
	}
	c := commandLine{proto: unix.IPPROTO_TCP}
	var ip netip.Addr
	var port uint16
	ok := true
	for rest := args[1:]; len(rest) > 0; {
		name, value, used := option(rest)
		rest = rest[used:]
		switch name {
		case "proto":
			c.proto, ok = protocol(value)
		case "host-port":
			c.hostPort, ok = parsePort(value)
		case "container-ip":
			ip, ok = parseIP(value)
		case "container-port":
			port, ok = parsePort(value)
		}
		if !ok {
			return commandLine{}, false
		}
	}
	c.container = netip.AddrPortFrom(ip, port)
	return c, ip.IsValid() && port != 0 && c.hostPort != 0
}

// Publishes reports whether a process with this command line (the text of
// /proc/PID/cmdline) listens on behalf of a container: a proxy, or the engine,
// which since Docker 28 opens the socket for its proxy.
func Publishes(text string) bool {
	name, _, _ := strings.Cut(text, "\x00")
	switch path.Base(name) {
	case program, "dockerd":
		return true
	}
	return false
}

// option parses an option as Go's package flag does (-name=value or -name value,
// with one dash or two), and returns how many arguments it used. The value is ""
// for an option without one, and the name is "" if the argument is not an option.
func option(args []string) (name, value string, used int) {
	name, isOption := strings.CutPrefix(args[0], "-")
	if !isOption {
		return "", "", 1
	}
	name = strings.TrimPrefix(name, "-")
	if name, value, ok := strings.Cut(name, "="); ok {
		return name, value, 1
	}
	if len(args) == 1 || strings.HasPrefix(args[1], "-") {
		return name, "", 1
	}
	return name, args[1], 2
}

func protocol(s string) (int, bool) {
	switch s {
	case "tcp":
		return unix.IPPROTO_TCP, true
	case "udp":
		return unix.IPPROTO_UDP, true
	}
	return 0, false
}

func parsePort(s string) (uint16, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil && n != 0
}

// parseIP refuses zones: a container's address has none.
func parseIP(s string) (netip.Addr, bool) {
	ip, err := netip.ParseAddr(s)
	return ip.Unmap(), err == nil && ip.Zone() == ""
}
