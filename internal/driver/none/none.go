// Package none is the network driver of --net=none: a namespace with only its
// loopback interface, which the launcher has already brought up.
package none

import (
	"context"

	"rootlesskit/internal/driver"
)

// Driver is the driver's registration.
func Driver() driver.Driver {
	return driver.Driver{Name: "none", Network: &driver.NetworkRole{
		MTU: 1500, Isolated: true, PortDrivers: []string{"builtin"}, New: New,
	}}
}

// Network is a driver.Network without a backend.
type Network struct{ ended chan struct{} }

// New returns the driver.
func New(driver.NetworkConfig, driver.Flags) (driver.Network, error) {
	return &Network{ended: make(chan struct{})}, nil
}

// Attach implements driver.Network.
func (n *Network) Attach(ctx context.Context, _ driver.Sandbox) (driver.Link, error) {
	context.AfterFunc(ctx, func() { close(n.ended) })
	return driver.Link{}, nil
}

// Wait implements driver.Network.
func (n *Network) Wait() error {
	<-n.ended
	return nil
}
