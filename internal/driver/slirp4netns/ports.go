package slirp4netns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"

	"rootlesskit/api"
	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/helper"
	"rootlesskit/internal/driver/relayed"
)

// Ports publishes ports through the slirp4netns process of the same run's
// Network. slirp4netns listens on IPv4 addresses only, and cannot reach
// loopback addresses of the namespace.
//
// It handles some UDP ports incorrectly, so the relay serves these instead. With
// --disable-host-loopback, slirp4netns drops everything that the namespace sends to
// the host's loopback, including the answers of servers to clients there. And it
// chooses the listener for an answer only by the server's address, so if two ports
// lead to one server, one of them would answer for both.
type Ports struct {
	*helper.Forwards
	network *Network
	api     apiClient
	child   netip.Addr
	relay   *relayed.Ports
}

func newPorts(n *Network, flags driver.Flags) *Ports {
	p := &Ports{network: n, child: n.plan.Child4.Addr(), relay: relayed.New(Name, flags)}
	p.Forwards = helper.NewForwards(p)
	return p
}

// prepare chooses the path of the API socket.
func (p *Ports) prepare(sb driver.Sandbox) error {
	dir, err := helper.PrivateDir(sb)
	p.api.path = filepath.Join(dir, helper.SocketName)
	return err
}

// Start implements driver.Ports.
func (p *Ports) Start(ctx context.Context, sb driver.Sandbox, link driver.Link) error {
	if err := p.relay.Start(ctx, sb, link); err != nil {
		return err
	}
	return p.Forwards.Start(ctx, p.network.program)
}

// Wait implements driver.Ports.
func (p *Ports) Wait() error { return errors.Join(p.Forwards.Wait(), p.relay.Wait()) }

// Info implements driver.Ports.
func (p *Ports) Info() api.PortDriverInfo {
	return api.PortDriverInfo{
		Driver:                  Name,
		Protos:                  []api.Proto{"tcp", "tcp4", "udp", "udp4"},
		DisallowLoopbackChildIP: true,
	}
}

// errRelay says that slirp4netns would not serve a port correctly.
var errRelay = errors.New("slirp4netns cannot serve the port")

// Forward implements driver.Ports.
func (p *Ports) Forward(ctx context.Context, spec api.PortSpec) (io.Closer, error) {
	closer, err := p.Forwards.Forward(ctx, spec)
	if !errors.Is(err, errRelay) {
		return closer, err
	}
	fwd, err := p.hostForward(spec)
	if err != nil {
		return nil, err
	}
	spec.Proto, spec.ChildIP = api.Proto(fwd.Proto+"4"), fwd.GuestAddr.String()
	return p.relay.Forward(ctx, spec)
}

// Check implements helper.Forwarder.
func (p *Ports) Check(spec api.PortSpec, open []api.PortSpec) error {
	fwd, err := p.hostForward(spec)
	if err != nil || fwd.Proto != api.UDP {
		return err
	}
	if p.network.cfg.DisableHostLoopback && (fwd.HostAddr.IsLoopback() || fwd.HostAddr.IsUnspecified()) {
		return errRelay
	}
	for _, o := range open {
		other, err := p.hostForward(o)
		if err == nil && other.Proto == api.UDP && other.GuestAddr == fwd.GuestAddr && other.GuestPort == fwd.GuestPort {
			return errRelay
		}
	}
	return nil
}

// hostForward returns the request to slirp4netns for a port.
func (p *Ports) hostForward(spec api.PortSpec) (hostForward, error) {
	f := hostForward{
		Proto:    spec.Proto.Transport(),
		HostAddr: netip.IPv4Unspecified(), HostPort: spec.ParentPort,
		GuestAddr: p.child, GuestPort: spec.ChildPort,
	}
	if addr, err := netip.ParseAddr(spec.ParentIP); err == nil && (spec.Proto.Family() == 0 || !addr.IsUnspecified()) {
		f.HostAddr = addr.Unmap() // with tcp4 and udp4, :: means 0.0.0.0
	}
	if addr, err := netip.ParseAddr(spec.ChildIP); err == nil && !addr.Unmap().IsUnspecified() {
		f.GuestAddr = addr.Unmap()
	}
	for _, addr := range []netip.Addr{f.HostAddr, f.GuestAddr} {
		if !addr.Is4() {
			return f, fmt.Errorf("%s: the port driver slirp4netns has no IPv6, use --port-driver=builtin", addr)
		}
	}
	if f.GuestAddr.IsLoopback() {
		return f, fmt.Errorf("child IP %s: the port driver slirp4netns cannot reach loopback addresses of the namespace; leave it out, or use --port-driver=builtin", f.GuestAddr)
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
