package bypass

import (
	"errors"
	"io"
	"net/netip"

	"rootlesskit/api"
	"rootlesskit/internal/driver/bypass/containers"
	"rootlesskit/internal/hostsock"
	"rootlesskit/internal/relay"
)

// Which ports of the host lead to a port of a namespace.

// target is a TCP port of a container, or of the launcher's namespace where guest is
// nil.
type target struct {
	guest  containers.Guest
	number uint16
}

func (p *port) leadsTo() target { return target{p.guest, p.target.Port()} }

// forwardBase opens a port that may become native. r leads to the container; nil: the
// port leads to the launcher's namespace.
func (p *Ports) forwardBase(spec api.PortSpec, to netip.AddrPort, guest containers.Guest, r relay.Router) (io.Closer, error) {
	base, err := hostsock.ListenBase(spec.Proto, spec.ParentIP, spec.ParentPort)
	if err != nil {
		return nil, err
	}
	opened := &port{driver: p, base: base, target: to, guest: guest, why: errors.New("no server has bound the port since it was published")}
	opened.fallback, err = p.ForwardOn(spec, to, hostsock.Sockets{FDs: []int{base.FD}}, func(own relay.Router) relay.Router {
		if r != nil {
			own = r
		}
		return opened.wrap(own)
	})
	if err != nil {
		return nil, err
	}
	p.enter(opened)
	return opened, nil
}

func (p *Ports) enter(entered *port) {
	p.mu.Lock()
	defer p.mu.Unlock()
	to := entered.leadsTo()
	p.byTarget[to] = append(p.byTarget[to], entered)
}

func (p *Ports) leave(left *port) {
	p.mu.Lock()
	defer p.mu.Unlock()
	to := left.leadsTo()
	var others []*port
	for _, other := range p.byTarget[to] {
		if other != left {
			others = append(others, other)
		}
	}
	if p.byTarget[to] = others; others == nil {
		delete(p.byTarget, to)
	}
}

// publishedBy returns a function that returns the ports which lead to a port of a
// container, or of the launcher's namespace where guest is nil.
func (p *Ports) publishedBy(guest containers.Guest) func(uint16) []*port {
	return func(number uint16) []*port {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.byTarget[target{guest, number}]
	}
}
