package main

import (
	"flag"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"rootlesskit/api"
)

// options is the argument vector of docker-proxy.
type options struct {
	proto         string
	hostIP        string
	hostPort      int
	containerIP   string
	containerPort int
}

func parseOptions(args []string) (options, error) {
	var o options
	set := o.flags()
	if err := set.Parse(args); err != nil {
		return o, err
	}
	if set.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	return o, nil
}

// flags returns the flags of docker-proxy, which dockerd writes with one dash.
func (o *options) flags() *flag.FlagSet {
	set := flag.NewFlagSet("rootlesskit-docker-proxy", flag.ContinueOnError)
	set.StringVar(&o.proto, "proto", "tcp", "`PROTOCOL` of the port: tcp or udp")
	set.StringVar(&o.hostIP, "host-ip", "", "`ADDRESS` of the host to publish on (default: all of its IPv4 addresses)")
	set.IntVar(&o.hostPort, "host-port", -1, "`PORT` of the host")
	set.StringVar(&o.containerIP, "container-ip", "", "`ADDRESS` of the container")
	set.IntVar(&o.containerPort, "container-port", -1, "`PORT` of the container")
	set.Bool("use-listen-fd", false, "ignored")
	return set
}

func (o options) hostAddr() string { return net.JoinHostPort(o.hostIP, strconv.Itoa(o.hostPort)) }

// spec returns the port to publish. Docker asks for each family separately, so
// the protocol is limited to one. Inside, docker-proxy listens on the loopback
// address of the family or, if the port driver cannot reach that, on the
// namespace's own address.
func (o options) spec(info *api.Info) (api.PortSpec, error) {
	family, childIP := "4", "127.0.0.1"
	if o.hostIP != "" {
		ip, err := netip.ParseAddr(o.hostIP)
		if err != nil {
			return api.PortSpec{}, fmt.Errorf("-host-ip=%s is not an IP address: %w", o.hostIP, err)
		}
		if ip.Is6() && !ip.Is4In6() {
			family, childIP = "6", "::1"
		}
	}
	if info.PortDriver.DisallowLoopbackChildIP {
		if info.NetworkDriver == nil || info.NetworkDriver.ChildIP == "" {
			return api.PortSpec{}, fmt.Errorf("port driver %q needs an address of the namespace, but it has none", info.PortDriver.Driver)
		}
		childIP = info.NetworkDriver.ChildIP
	}
	return api.PortSpec{
		Proto:      api.Proto(o.proto + family),
		ParentIP:   o.hostIP,
		ParentPort: o.hostPort,
		ChildIP:    childIP,
		ChildPort:  o.hostPort,
	}, nil
}

// proxyArgs returns docker-proxy's arguments: those of this program, except
// that it listens on listenIP.
func (o options) proxyArgs(listenIP string) []string {
	return []string{
		"-proto", o.proto,
		"-host-ip", listenIP, "-host-port", strconv.Itoa(o.hostPort),
		"-container-ip", o.containerIP, "-container-port", strconv.Itoa(o.containerPort),
	}
}
