// Package builtin is RootlessKit's own port driver: every connection and every
// datagram goes through the relay. Package relayed implements it.
package builtin

import (
	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/relayed"
)

// Name is the driver's name on the command line.
const Name = "builtin"

// Driver is the driver's registration.
func Driver() driver.Driver {
	return driver.Driver{
		Name:  Name,
		Flags: relayed.Flags(),
		Ports: []driver.PortRole{{Name: Name, Auto: driver.Auto{Rank: 1, Why: "the fastest"}, New: New}},
		Child: relayed.Handlers,
	}
}

// New returns the driver.
func New(_ driver.PortsConfig, flags driver.Flags) (driver.Ports, error) {
	if err := relayed.CheckFlags(flags); err != nil {
		return nil, err
	}
	return relayed.New(Name, flags), nil
}
