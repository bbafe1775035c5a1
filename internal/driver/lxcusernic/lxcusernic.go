// Package lxcusernic is the network driver backed by lxc-user-nic(1), a setuid
// program of LXC that puts a veth pair between a bridge of the host and the
// namespace.
//
// Theory of operation. The parent runs the program once, which makes the pair
// (create.go); the pair ends with the namespace. The address comes from the bridge's
// DHCP server: the child runs the DHCP protocol on the interface (dhcp.go), and the
// parent keeps the lease and has it renewed (renew.go).
package lxcusernic

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"rootlesskit/internal/driver"
	"rootlesskit/internal/netns"
)

// Name is the driver's name on the command line.
const Name = "lxc-user-nic"

const (
	binaryFlag = "lxc-user-nic-binary"
	bridgeFlag = "lxc-user-nic-bridge"
)

// Driver is the driver's registration.
func Driver() driver.Driver {
	return driver.Driver{
		Name: Name,
		Flags: []driver.Flag{
			{Name: binaryFlag, Kind: driver.File, Usage: "path of the lxc-user-nic binary (default: on PATH, or else in the directories that distributions use)"},
			{Name: bridgeFlag, Default: "lxcbr0", Usage: "bridge that lxc-user-nic attaches to"},
		},
		Network: &driver.NetworkRole{
			MTU: 1500, Ifname: "eth0", New: New,
			Helper: &driver.Helper{Flag: binaryFlag, Package: "lxc"},
		},
		Child: Handlers,
	}
}

// A new lease may change the link.
var _ driver.Changing = (*Network)(nil)

// Network is the network driver.
type Network struct {
	cfg    driver.NetworkConfig
	binary string
	bridge string

	sb    driver.Sandbox
	ended chan struct{} // closed when the lease is no longer renewed

	mu    sync.Mutex
	lease lease
}

// New makes the network driver.
func New(cfg driver.NetworkConfig, flags driver.Flags) (driver.Network, error) {
	binary, err := findBinary(flags.String(binaryFlag))
	if err != nil {
		return nil, err
	}
	bridge := cmp.Or(flags.String(bridgeFlag), "lxcbr0")
	return &Network{cfg: cfg, binary: binary, bridge: bridge, ended: make(chan struct{})}, nil
}

// firstLease bounds the time until the server gives an address.
const firstLease = 30 * time.Second

// Attach implements driver.Network.
func (n *Network) Attach(ctx context.Context, sb driver.Sandbox) (driver.Link, error) {
	n.sb = sb
	if err := n.create(ctx); err != nil {
		return driver.Link{}, err
	}
	up := netns.LinkRequest{Name: n.cfg.Ifname, MTU: n.cfg.MTU}
	if err := netns.Configure(ctx, sb.Child, up); err != nil {
		return driver.Link{}, err
	}
	limited, cancel := context.WithTimeout(ctx, firstLease)
	defer cancel()
	l, err := n.ask(limited, lease{})
	if err != nil {
		return driver.Link{}, fmt.Errorf("no address from DHCP on %q, at the bridge %q: %w (does a DHCP server run there, such as that of lxc-net?)",
			n.cfg.Ifname, n.bridge, err)
	}
	if err := n.apply(ctx, l); err != nil {
		return driver.Link{}, err
	}
	go func() {
		defer close(n.ended)
		n.renew(ctx)
	}()
	return n.Link(), nil
}

// Link implements driver.Changing.
func (n *Network) Link() driver.Link {
	n.mu.Lock()
	defer n.mu.Unlock()
	return driver.Link{Ifname: n.cfg.Ifname, MTU: n.cfg.MTU, IPv4: n.lease.Addr, DNS: n.lease.DNS, DynamicIP: true}
}

// Wait implements driver.Network. A pair of interfaces cannot die.
func (n *Network) Wait() error {
	<-n.ended
	return nil
}
