// Package portstest has a port driver that opens nothing, for tests of the
// packages above the drivers.
package portstest

import (
	"context"
	"fmt"
	"io"
	"sync"

	"rootlesskit/api"
	"rootlesskit/internal/driver"
)

// Driver forwards tcp, tcp4 and udp. It counts for TCP only: a port's Accepted is
// its ParentPort. The hooks, if set, run first, and their error is the result.
type Driver struct {
	OnForward func(ctx context.Context, spec api.PortSpec) error
	OnClose   func(spec api.PortSpec) error

	mu   sync.Mutex
	open map[api.PortSpec]bool
}

var _ driver.Ports = (*Driver)(nil)

// Start does nothing.
func (d *Driver) Start(context.Context, driver.Sandbox, driver.Link) error { return nil }

// Wait returns at once.
func (d *Driver) Wait() error { return nil }

// Info describes the driver.
func (d *Driver) Info() api.PortDriverInfo {
	return api.PortDriverInfo{Driver: "fake", Protos: []api.Proto{"tcp", "tcp4", "udp"}}
}

// OpenPorts returns how many ports are open.
func (d *Driver) OpenPorts() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.open)
}

// Forward fails if the same spec is open.
func (d *Driver) Forward(ctx context.Context, spec api.PortSpec) (io.Closer, error) {
	if d.OnForward != nil {
		if err := d.OnForward(ctx, spec); err != nil {
			return nil, err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open[spec] {
		return nil, fmt.Errorf("listen %s %s:%d: bind: address already in use", spec.Proto, spec.ParentIP, spec.ParentPort)
	}
	if d.open == nil {
		d.open = map[api.PortSpec]bool{}
	}
	d.open[spec] = true
	p := &port{driver: d, spec: spec}
	if spec.Proto == "udp" {
		return p, nil
	}
	return countingPort{p}, nil
}

type port struct {
	driver *Driver
	spec   api.PortSpec
}

func (p *port) Close() error {
	if p.driver.OnClose != nil {
		if err := p.driver.OnClose(p.spec); err != nil {
			return err
		}
	}
	p.driver.mu.Lock()
	defer p.driver.mu.Unlock()
	delete(p.driver.open, p.spec)
	return nil
}

type countingPort struct{ *port }

var _ driver.Detailer = countingPort{}

func (p countingPort) Details() api.PortDetails {
	return api.PortDetails{Accepted: uint64(p.spec.ParentPort)}
}
