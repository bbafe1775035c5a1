// Package builtin is RootlessKit's own port driver: every connection and every
// datagram goes through the relay. See package relayed, which it is.
package builtin

import (
	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/relayed"
)

// Name is the driver's name on the command line.
const Name = "builtin"

// New returns the driver.
func New(_ driver.Network, flags driver.Flags) (driver.Ports, error) {
	return relayed.New(Name, flags), nil
}
