// Package relayed makes a port driver of package publish, which listens in the
// host and connects, from the parent itself, with sockets that the child made
// inside the namespace. The driver builtin is just this; others build on it.
package relayed

import (
	"context"
	"io"
	"maps"

	"rootlesskit/api"
	"rootlesskit/internal/driver"
	"rootlesskit/internal/netns"
	"rootlesskit/internal/publish"
	"rootlesskit/internal/sourceip"
	"rootlesskit/internal/userlandproxy"
	"rootlesskit/internal/wire"
)

// Ports is the driver. It works with every network driver that gives the child
// a network namespace of its own, and needs no support from it.
type Ports struct {
	*publish.Ports // nil before Start
	name           string
	backend        string
	ended          chan struct{} // closed when everything is
}

var _ driver.Detailer = (*publish.Port)(nil) // of Forward

// Handlers returns the handlers that the ports need inside the child.
func Handlers(ctx context.Context, ns *netns.Namespace) wire.Handlers {
	all := sourceip.Handlers(ctx, ns)
	maps.Copy(all, userlandproxy.Handlers(ctx, ns))
	return all
}

// New returns a driver with the given name; flags must include those of Flags.
func New(name string, flags driver.Flags) *Ports {
	return &Ports{name: name, backend: readBackend(flags), ended: make(chan struct{})}
}

// Start implements driver.Ports. It starts nothing that takes resources.
func (p *Ports) Start(ctx context.Context, sb driver.Sandbox, link driver.Link) error {
	p.Ports = publish.Open(ctx, sb.Child, publish.Config{
		Backend:         p.backend,
		UserlandProxies: p.backend != "",
		IPv4:            link.IPv4.Addr(),
		IPv6:            link.IPv6.Addr(),
		Inherited:       sb.Inherited,
		Log:             sb.Log,
	})
	context.AfterFunc(ctx, func() {
		p.Close()
		close(p.ended)
	})
	return nil
}

// Wait implements driver.Ports.
func (p *Ports) Wait() error {
	<-p.ended
	return nil
}

// Info implements driver.Ports.
func (p *Ports) Info() api.PortDriverInfo {
	return api.PortDriverInfo{
		Driver:         p.name,
		Protos:         []api.Proto{"tcp", "tcp4", "tcp6", "udp", "udp4", "udp6"},
		ProxyProtocols: []string{api.ProxyProtocolV2},
		Extra:          p.sourceExtra(),
	}
}

// Forward implements driver.Ports.
func (p *Ports) Forward(_ context.Context, spec api.PortSpec) (io.Closer, error) {
	port, err := p.Ports.Forward(spec)
	if err != nil {
		return nil, err
	}
	return port, nil
}
