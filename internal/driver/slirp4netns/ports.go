package slirp4netns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"rootlesskit/api"
	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/helper"
)

// Ports publishes ports through the slirp4netns of the Network of the same run.
// slirp4netns listens on IPv4 addresses only, and cannot reach loopback
// addresses of the namespace.
//
// Two things it does wrong, and they are refused here. It drops what the
// namespace sends to the host's loopback by --disable-host-loopback, the
// answers of UDP servers to clients there among it. And it finds the listener
// that such an answer leaves by from the server's address alone, so of two UDP
// ports that lead to one server, one would answer for both.
type Ports struct {
	*helper.Forwards
	network *Network
	api     apiClient
	child   netip.Addr
}

// NewPorts makes the port driver. It works with the Network of this package
// alone.
func NewPorts(network driver.Network, _ driver.Flags) (driver.Ports, error) {
	n, ok := network.(*Network)
	if !ok {
		return nil, errors.New("port driver requires slirp4netns network")
	}
	n.ports = &Ports{network: n, child: n.plan.Child4.Addr()}
	n.ports.Forwards = helper.NewForwards(n.ports)
	return n.ports, nil
}

// prepare finds a place for the API socket.
func (p *Ports) prepare(sb driver.Sandbox) error {
	dir, err := helper.PrivateDir(sb)
	p.api.path = filepath.Join(dir, helper.SocketName)
	return err
}

// Start implements driver.Ports.
func (p *Ports) Start(ctx context.Context, sb driver.Sandbox, _ driver.Link) error {
	if p.network.cfg.DisableHostLoopback {
		sb.Log.Debug("with --disable-host-loopback, UDP ports published by slirp4netns do not answer clients on the host's loopback")
	}
	return p.Forwards.Start(ctx, p.network.program)
}

// Info implements driver.Ports.
func (p *Ports) Info() api.PortDriverInfo {
	return api.PortDriverInfo{
		Driver:                  Name,
		Protos:                  []string{"tcp", "tcp4", "udp", "udp4"},
		DisallowLoopbackChildIP: true,
	}
}

// Check implements helper.Forwarder.
func (p *Ports) Check(spec api.PortSpec, open []api.PortSpec) error {
	fwd, err := p.hostForward(spec)
	if err != nil || fwd.Proto != "udp" {
		return err
	}
	if fwd.HostAddr.IsLoopback() && p.network.cfg.DisableHostLoopback {
		return fmt.Errorf("UDP on %s would never be answered: with --disable-host-loopback, slirp4netns drops what goes to the host's loopback; publish on another address or use --port-driver=builtin", fwd.HostAddr)
	}
	for _, o := range open {
		other, err := p.hostForward(o)
		if err == nil && other.Proto == "udp" && other.GuestAddr == fwd.GuestAddr && other.GuestPort == fwd.GuestPort {
			return fmt.Errorf("UDP port %d inside is already published as %s: slirp4netns would answer the clients of one of them from the other; use --port-driver=builtin", fwd.GuestPort, o)
		}
	}
	return nil
}

// hostForward is a port as slirp4netns is asked for it. A loopback address of
// the namespace becomes the namespace's own: clients that do not know the
// driver ask for it.
func (p *Ports) hostForward(spec api.PortSpec) (hostForward, error) {
	f := hostForward{
		Proto:    strings.TrimRight(spec.Proto, "46"),
		HostAddr: netip.IPv4Unspecified(), HostPort: spec.ParentPort,
		GuestAddr: p.child, GuestPort: spec.ChildPort,
	}
	if addr, err := netip.ParseAddr(spec.ParentIP); err == nil && !addr.IsUnspecified() {
		f.HostAddr = addr.Unmap()
	}
	if addr, err := netip.ParseAddr(spec.ChildIP); err == nil && !addr.IsUnspecified() && !addr.IsLoopback() {
		f.GuestAddr = addr.Unmap()
	}
	for _, addr := range []netip.Addr{f.HostAddr, f.GuestAddr} {
		if !addr.Is4() {
			return f, fmt.Errorf("%s: the port driver slirp4netns has no IPv6, use --port-driver=builtin", addr)
		}
	}
	return f, nil
}

// Add implements helper.Forwarder.
func (p *Ports) Add(ctx context.Context, spec api.PortSpec) (func(context.Context) error, error) {
	fwd, err := p.hostForward(spec)
	if err != nil {
		return nil, err
	}
	id, err := p.api.addForward(ctx, fwd)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error { return p.api.removeForward(ctx, id) }, nil
}
