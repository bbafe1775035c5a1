// Package pasta is the network and port drivers backed by pasta(1) and
// pesto(1).
//
// pasta serves a TAP device of the namespace, which the child has made and which
// outlives it (package helper); so pasta itself configures nothing. What is
// asked of it depends on what the installed version can do (options.go). Ports
// are published by pasta on its own (--port-driver=implicit), or with pesto,
// which changes the rules of a pasta that runs (pesto.go).
package pasta

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/helper"
)

// Name is the network driver's name on the command line.
const Name = "pasta"

// Network is the network driver.
type Network struct {
	cfg    driver.NetworkConfig
	plan   helper.Plan
	binary *helper.Binary
	// implicit has pasta publish all ports that the namespace listens on.
	implicit bool
	pesto    *Ports // nil without --port-driver=pesto

	dir     string // of sockets
	program *helper.Program
}

// New makes the network driver.
func New(cfg driver.NetworkConfig, flags driver.Flags) (driver.Network, error) {
	binary, err := probe(flags)
	if err != nil {
		return nil, err
	}
	return &Network{cfg: cfg, plan: helper.NewPlan(cfg), binary: binary}, nil
}

// NewImplicit makes the network publish every port that is listened on inside,
// as --port-driver=implicit. There is no driver to speak to.
func NewImplicit(network driver.Network, _ driver.Flags) (driver.Ports, error) {
	n, ok := network.(*Network)
	if !ok {
		return nil, errors.New("port driver \"implicit\" requires --net=pasta")
	}
	if !n.binary.Has("--host-lo-to-ns-lo") && !n.binary.Has("--no-copy-routes") {
		return nil, fmt.Errorf("port driver \"implicit\" requires passt >= 2023_12_04: %s is older, and does not notice the ports of a namespace that it joins", n.binary.Path)
	}
	n.implicit = true
	return nil, nil
}

// Attach implements driver.Network.
func (n *Network) Attach(ctx context.Context, sb driver.Sandbox) (link driver.Link, err error) {
	device := helper.Device{Name: n.cfg.Ifname, MTU: n.cfg.MTU, Plan: n.plan}
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
	if n.implicit {
		sb.Log.Info("pasta's limit: a server on an address of 127.0.0.0/8 other than 127.0.0.1 is reached by TCP, not by UDP")
	}
	if n.pesto != nil {
		sb.Log.Info("pasta's limit: a server on 127.0.0.1 inside is not reached by published ports")
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

// command makes one start of the program. It writes its process ID to --pid
// when it is ready, here into a FIFO.
func (n *Network) command(sb driver.Sandbox) (*helper.Command, error) {
	_ = os.Remove(n.confSocket()) // the one of a program that died
	fifo := filepath.Join(n.dir, "ready")
	if err := unix.Mkfifo(fifo, 0o600); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("making a FIFO for pasta: %w", err)
	}
	// Open for writing as well, the FIFO does not end before it is written to.
	ready, err := os.OpenFile(fifo, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the FIFO for pasta: %w", err)
	}
	args := append(n.args(), "--pid="+fifo, fmt.Sprintf("--userns=/proc/%d/ns/user", sb.PID), "--netns="+sb.NetnsPath)
	return &helper.Command{Path: n.binary.Path, Args: args, Ready: ready}, nil
}

// confSocket is where pesto reaches pasta.
func (n *Network) confSocket() string { return filepath.Join(n.dir, helper.SocketName) }

// Wait implements driver.Network.
func (n *Network) Wait() error { return n.program.Wait() }
