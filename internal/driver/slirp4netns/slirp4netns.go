// Package slirp4netns has the network and port driver that use slirp4netns(1),
// version 0.4.0 or later.
//
// slirp4netns serves a TAP device of the namespace, which the child has made
// and which outlives the program (package helper). Ports are published through
// the program's API socket (api.go, ports.go). slirp4netns ends with the
// launcher: it polls one end of a pipe (--exit-fd), and the launcher holds the
// other.
package slirp4netns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"

	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/helper"
	"rootlesskit/internal/driver/relayed"
)

// Name is the name of both drivers on the command line.
const Name = "slirp4netns"

const (
	binaryFlag  = "slirp4netns-binary"
	sandboxFlag = "slirp4netns-sandbox"
	seccompFlag = "slirp4netns-seccomp"
)

// Driver is the drivers' registration.
func Driver() driver.Driver {
	modes := []string{"auto", "true", "false"}
	return driver.Driver{
		Name: Name,
		Flags: append([]driver.Flag{
			{Name: binaryFlag, Kind: driver.File, Default: "slirp4netns", Usage: "path of the slirp4netns binary"},
			{Name: sandboxFlag, Default: "false", Values: modes, Usage: "enable slirp4netns's sandbox; conflicts with --detach-netns, with which auto means false"},
			{Name: seccompFlag, Default: "false", Values: modes, Usage: "enable slirp4netns's seccomp filter"},
		}, relayed.Flags()...),
		Network: &driver.NetworkRole{
			MTU: 65520, Ifname: "tap0", CIDR: true, IPv6: true, TUN: true, New: New,
			Auto:   driver.Auto{Rank: 2, Why: "the fastest outbound of those that are present"},
			Helper: &driver.Helper{Flag: binaryFlag, Package: "slirp4netns"},
			Leak: "with --net=slirp4netns a program inside that writes frames to the network device itself reaches the host's 127.0.0.1" +
				" in spite of --disable-host-loopback",
		},
		Ports: []driver.PortRole{{Name: Name}},
	}
}

var _ driver.Publisher = (*Network)(nil)

// Network is the network driver.
type Network struct {
	cfg     driver.NetworkConfig
	plan    helper.Plan
	options options
	ports   *Ports // nil unless the port driver is this package's

	program *helper.Program
}

// New makes the network driver.
func New(cfg driver.NetworkConfig, flags driver.Flags) (driver.Network, error) {
	o, err := newOptions(cfg, flags)
	if err != nil {
		return nil, err
	}
	n := &Network{cfg: cfg, plan: helper.NewPlan(cfg), options: o}
	if cfg.Ports == Name {
		n.ports = newPorts(n, flags)
	}
	return n, nil
}

// Ports implements driver.Publisher.
func (n *Network) Ports() driver.Ports { return n.ports }

// gatewayMAC is what slirp4netns answers for the gateway: its addresses are made of the
// IP address. It takes packets to any of them.
func gatewayMAC(gateway netip.Addr) net.HardwareAddr {
	ip := gateway.As4()
	return net.HardwareAddr{0x52, 0x55, ip[0], ip[1], ip[2], ip[3]}
}

// Attach implements driver.Network.
func (n *Network) Attach(ctx context.Context, sb driver.Sandbox) (driver.Link, error) {
	device := helper.Device{Name: n.cfg.Ifname, MTU: n.cfg.MTU, Plan: n.plan, PeerMAC: gatewayMAC(n.plan.Gateway4)}
	if err := device.Make(ctx, sb); err != nil {
		return driver.Link{}, err
	}
	cfg := helper.Config{
		Version: n.options.binary.Version,
		Name:    Name,
		Command: func() (*helper.Command, error) { return n.command(sb) },
		Log:     sb.Log,
	}
	if n.ports != nil {
		if err := n.ports.prepare(sb); err != nil {
			return driver.Link{}, err
		}
		cfg.Restore = n.ports.Restore
	}
	var err error
	if n.program, err = helper.Start(ctx, cfg); err != nil {
		return driver.Link{}, err
	}
	if err := device.Configure(ctx, sb); err != nil {
		return driver.Link{}, err
	}
	return device.Link(n.plan.DNS()...), nil
}

// command returns the command for one start of the program. The program reports
// on descriptor 3 that it is ready, and ends when descriptor 4 does.
func (n *Network) command(sb driver.Sandbox) (*helper.Command, error) {
	ready, theirReady, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("making a pipe for slirp4netns: %w", err)
	}
	theirExit, exit, err := os.Pipe()
	if err != nil {
		ready.Close()
		theirReady.Close()
		return nil, fmt.Errorf("making a pipe for slirp4netns: %w", err)
	}
	args := append([]string{"--ready-fd=3", "--exit-fd=4"}, n.options.args(n.cfg)...)
	if n.ports != nil {
		_ = os.Remove(n.ports.api.path) // the one of a program that died
		args = append(args, "--api-socket="+n.ports.api.path)
	}
	args = append(append(args, target(sb)...), n.cfg.Ifname)
	return &helper.Command{
		Path: n.options.binary.Path, Args: args,
		Files: []*os.File{theirReady, theirExit}, Ready: ready, Held: exit,
	}, nil
}

// target returns the arguments that name the namespaces. The sandbox only works
// with a process ID.
func target(sb driver.Sandbox) []string {
	pid := strconv.Itoa(sb.PID)
	if !sb.Detached {
		return []string{pid}
	}
	return []string{"--userns-path=/proc/" + pid + "/ns/user", "--netns-type=path", sb.NetnsPath}
}

// Wait implements driver.Network.
func (n *Network) Wait() error { return n.program.Wait() }
