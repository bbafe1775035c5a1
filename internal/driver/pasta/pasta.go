// Package pasta has the network and port drivers that use pasta(1) and
// pesto(1).
//
// pasta serves a TAP device of the namespace, which the child has made and which
// outlives pasta (package helper), so pasta itself configures nothing. Its
// options depend on what the installed version supports (options.go). pasta
// publishes ports on its own (--port-driver=implicit), or as pesto asks, which
// changes the rules of a running pasta (pesto.go).
package pasta

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/helper"
	"rootlesskit/internal/driver/relayed"
)

// The names of the network driver and of its port drivers on the command line.
const (
	Name     = "pasta"
	Implicit = "implicit"
	Pesto    = "pesto"
)

const (
	binaryFlag = "pasta-binary"
	pestoFlag  = "pesto-binary"
)

// Driver is the drivers' registration.
func Driver() driver.Driver {
	return driver.Driver{
		Name: Name,
		Flags: append([]driver.Flag{
			{Name: binaryFlag, Kind: driver.File, Default: "pasta", Usage: "path of the pasta binary"},
			{Name: pestoFlag, Kind: driver.File, Default: "pesto", Usage: "path of the pesto binary for --port-driver=pesto"},
		}, relayed.Flags()...),
		Network: &driver.NetworkRole{
			MTU: 65520, Ifname: "tap0", CIDR: true, IPv6: true, TUN: true, PortDrivers: []string{Implicit, Pesto}, New: New,
			Auto: driver.Auto{Rank: 3, Why: "present"},
			Helper: &driver.Helper{
				Flag: binaryFlag, Package: "passt",
				Limits: "with --port-driver=implicit, a server on 127.0.0.2 and such inside has TCP, not UDP",
			},
		},
		// auto never chooses implicit, which publishes ports that no one asked for.
		Ports: []driver.PortRole{{Name: Implicit, Unasked: true}, {
			Name: Pesto,
			Auto: driver.Auto{Rank: 2, Why: "pasta's own"},
			Helper: &driver.Helper{
				Flag: pestoFlag, Package: "passt", Limits: "a server on 127.0.0.1 inside is not reached by its ports",
			},
		}},
	}
}

var _ driver.Publisher = (*Network)(nil)

// Network is the network driver.
type Network struct {
	cfg    driver.NetworkConfig
	plan   helper.Plan
	binary *helper.Binary
	pesto  *Ports // nil without --port-driver=pesto

	dir     string // of sockets
	program *helper.Program
}

// New makes the network driver.
func New(cfg driver.NetworkConfig, flags driver.Flags) (driver.Network, error) {
	binary, err := probe(flags)
	if err != nil {
		return nil, err
	}
	n := &Network{cfg: cfg, plan: helper.NewPlan(cfg), binary: binary}
	switch cfg.Ports {
	case Implicit:
		err = checkImplicit(binary)
	case Pesto:
		n.pesto, err = newPorts(n, flags)
	}
	if err != nil {
		return nil, err
	}
	return n, nil
}

// implicit reports whether pasta publishes every port that a server inside listens on.
func (n *Network) implicit() bool { return n.cfg.Ports == Implicit }

func checkImplicit(binary *helper.Binary) error {
	if binary.Has("--host-lo-to-ns-lo") || binary.Has("--no-copy-routes") {
		return nil
	}
	return fmt.Errorf("port driver \"implicit\" requires passt >= 2023_12_04: %s is older, and does not notice the ports of a namespace that it joins", binary.Path)
}

// Ports implements driver.Publisher.
func (n *Network) Ports() driver.Ports { return n.pesto }

// ownMAC is the address of pasta's end. It takes packets to any.
var ownMAC = net.HardwareAddr{0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55}

// Attach implements driver.Network.
func (n *Network) Attach(ctx context.Context, sb driver.Sandbox) (link driver.Link, err error) {
	device := helper.Device{Name: n.cfg.Ifname, MTU: n.cfg.MTU, Plan: n.plan, PeerMAC: ownMAC}
	if err := device.Make(ctx, sb); err != nil {
		return link, err
	}
	if n.dir, err = helper.PrivateDir(sb); err != nil {
		return link, err
	}
	cfg := helper.Config{
		Name:    Name,
		Version: n.binary.Version,
		Command: func() (*helper.Command, error) { return n.command(sb) },
		Log:     sb.Log,
	}
	if n.implicit() {
		sb.Log.Info("a limit of pasta: a server on an address of 127.0.0.0/8 other than 127.0.0.1 can be reached over TCP, but not over UDP")
	}
	if n.pesto != nil {
		sb.Log.Info("a limit of pasta: published ports do not reach a server on 127.0.0.1 inside")
		cfg.Restore = n.pesto.Restore
	}
	if n.program, err = helper.Start(ctx, cfg); err != nil {
		return link, err
	}
	if err := device.Configure(ctx, sb); err != nil {
		return link, err
	}
	return device.Link(n.plan.DNS4), nil
}

// command returns the command for one start of the program. When the program is
// ready, it writes its process ID to --pid, which is a FIFO here.
func (n *Network) command(sb driver.Sandbox) (*helper.Command, error) {
	_ = os.Remove(n.confSocket()) // the one of a program that died
	fifo := filepath.Join(n.dir, "ready")
	if err := unix.Mkfifo(fifo, 0o600); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("making a FIFO for pasta: %w", err)
	}
	// The FIFO is also opened for writing, so that reading does not end before the
	// program writes.
	ready, err := os.OpenFile(fifo, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the FIFO for pasta: %w", err)
	}
	args := append(n.args(), "--pid="+fifo, fmt.Sprintf("--userns=/proc/%d/ns/user", sb.PID), "--netns="+sb.NetnsPath)
	return &helper.Command{Path: n.binary.Path, Args: args, Ready: ready}, nil
}

// confSocket is the path of the socket through which pesto reaches pasta.
func (n *Network) confSocket() string { return filepath.Join(n.dir, helper.SocketName) }

// Wait implements driver.Network.
func (n *Network) Wait() error { return n.program.Wait() }
