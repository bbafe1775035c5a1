package publish

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/question"
	"rootlesskit/internal/relay"
	"rootlesskit/internal/sourceip"
	"rootlesskit/internal/userlandproxy"
)

// pastProxy is the relay.Router of a port at whose address a container engine's proxy
// may listen. It bypasses the proxy and leads to the container, which then sees its
// clients instead of the proxy. If connecting to the container fails, it leads to the
// proxy.
type pastProxy struct {
	*router // to the requested address
	ports   *Ports
	ctx     context.Context // ends with the port
	udp     bool
	at      netip.AddrPort
	cancel  context.CancelFunc

	known  atomic.Pointer[way]     // nil if the child has to be asked
	led    atomic.Pointer[way]     // the latest that led to a container; nil: none ever did
	silent atomic.Pointer[silence] // see Reroute; nil: none
	// refused are clients that were refused by a container, until another route is
	// found for them.
	refused sync.Map

	question  *question.Shared[*way] // to the child
	udpTrials                        // of Look
}

// way describes where a port leads.
type way struct {
	// past leads to the container; nil if the port leads to the requested address.
	past      *router
	container netip.AddrPort
	proxy     *userlandproxy.Proxy // nil: there is none
}

// alive reports whether the bypassed proxy, if any, still runs.
func (w *way) alive() bool { return w.past == nil || w.proxy.Alive() }

// silence is a container that does not answer clients, and how long its clients
// therefore go to the proxy.
type silence struct {
	container netip.AddrPort
	pause     time.Duration
	end       time.Time
}

const (
	// wayTTL bounds how long a new proxy may go unnoticed, and minWayTTL how often
	// a port asks for one, while clients arrive.
	wayTTL    = time.Second
	minWayTTL = 20 * time.Millisecond
	// minSilence and maxSilence bound how long the clients of a container go to its
	// proxy: the container may be about to start, or may never be able to answer.
	minSilence = time.Second
	maxSilence = 5 * time.Minute
	// findTimeout bounds the wait for a child that does not answer. For a client,
	// waiting is better than being seen as the proxy.
	findTimeout = 10 * time.Second
)

// newPastProxy returns a relay.Router for a port, which must be closed; nil if the port
// need not look for proxies.
func (p *Ports) newPastProxy(udp bool, at netip.AddrPort, asked *router) *pastProxy {
	if !p.cfg.UserlandProxies || p.cfg.Own.IsValid() || at.Addr().IsUnspecified() {
		return nil
	}
	r := &pastProxy{router: asked, ports: p, udp: udp, at: at, question: question.New[*way]()}
	r.ctx, r.cancel = context.WithCancel(p.pools.ctx)
	return r
}

// Route implements relay.Router.
func (r *pastProxy) Route(client, local netip.AddrPort) relay.Route {
	w := r.known.Load()
	switch {
	case w == nil:
		return relay.Route{}
	case w.past == nil:
		return r.router.Route(client, local)
	case !w.alive():
		r.known.CompareAndSwap(w, nil)
		return relay.Route{}
	}
	return r.direct(w.past.Route(client, local))
}

// direct marks a route that bypasses the proxy. An engine may publish a port before
// its container can be reached: a connection waits for it, as the proxy's would.
func (r *pastProxy) direct(route relay.Route) relay.Route {
	route.Direct = route.Target.IsValid()
	route.Guess = route.Guess || route.Direct && !r.udp
	return route
}

// Resolve implements relay.Router.
func (r *pastProxy) Resolve(client, local netip.AddrPort) relay.Route {
	if _, refused := r.refused.LoadAndDelete(client); refused {
		return r.router.way(client, local)
	}
	if w, ok := r.valid(); ok {
		return r.along(w, client, local)
	}
	// Both questions at once, as mostly there is no proxy: a client waits for them.
	ahead := make(chan relay.Route, 1)
	go func() { ahead <- r.router.way(client, local) }()
	if w := r.ask(r.valid); w.past != nil {
		return r.along(w, client, local)
	}
	return <-ahead
}

// along is the route of a client where the way is known.
func (r *pastProxy) along(w *way, client, local netip.AddrPort) relay.Route {
	if w.past == nil {
		return r.router.way(client, local)
	}
	return r.direct(w.past.way(client, local))
}

// way returns the route of a client, and asks the child if necessary.
func (r *router) way(client, local netip.AddrPort) relay.Route {
	if route := r.Route(client, local); route.Target.IsValid() {
		return route
	}
	return r.Resolve(client, local)
}

// Reroute implements relay.Router. A client that cannot connect to the container goes to
// the proxy. If the container does not answer, all clients go to the proxy for a while,
// since the container may be unable to answer clients with such addresses.
func (r *pastProxy) Reroute(client, local netip.AddrPort, failed error) (relay.Route, bool) {
	led := r.led.Load()
	if led == nil {
		return r.router.Reroute(client, local, failed)
	}
	if none := (*relay.NoAnswer)(nil); errors.As(failed, &none) {
		if none.Target != led.container {
			return r.router.Reroute(client, local, failed)
		}
		r.noAnswer(led.container, client)
	} else if failed == unix.EADDRINUSE || failed == unix.EADDRNOTAVAIL {
		route, ok := led.past.Reroute(client, local, failed)
		return r.direct(route), ok
	}
	r.known.Store(nil)
	r.refused.Store(client, nil)
	return relay.Route{}, true
}

// noAnswer leaves the clients of a container to its proxy, for longer each time.
func (r *pastProxy) noAnswer(container, client netip.AddrPort) {
	now, pause := time.Now(), minSilence
	if s := r.silent.Load(); s != nil && s.container == container {
		if now.Before(s.end) {
			return // other connections have found out in the meantime
		}
		if now.Before(s.end.Add(s.pause)) { // else it has answered since, and was restarted
			pause = min(2*s.pause, maxSilence)
		}
	}
	r.silent.Store(&silence{container, pause, now.Add(pause)})
	r.ports.cfg.Log.Warn("a container does not answer a client's own address, its userland proxy is the way for a while",
		"port", r.at.Port(), "container", container, "client", client.Addr(), "while", pause)
}

// Look implements relay.Looker. A flow whose server answers stays where it is. If the
// container fails a client, the client goes to the proxy.
func (r *pastProxy) Look(flows []relay.Doubt) []relay.Route {
	w := r.ask(nil)
	if w.past == nil {
		return r.router.Look(flows)
	}
	routes := make([]relay.Route, len(flows))
	for i, f := range flows {
		switch {
		case f.Route.Target == w.container && r.fails(w, f):
			routes[i] = r.router.way(f.Client, f.Local)
		case f.Route.Target == w.container, f.Answered && !f.Route.Direct:
			routes[i] = f.Route
			routes[i].Unserved = false
		default:
			routes[i] = r.direct(w.past.way(f.Client, f.Local))
		}
	}
	return routes
}

// via says where the port leads.
func (r *pastProxy) via() string {
	w := r.ask(r.valid)
	switch {
	case w.past != nil:
		return "container " + w.container.String()
	case w.proxy != nil:
		return "userland proxy"
	}
	return ""
}

// valid returns the known way if it is still valid.
func (r *pastProxy) valid() (*way, bool) {
	w := r.known.Load()
	return w, w != nil && w.alive()
}

// ask waits for its turn, and then returns the way that known returns, or asks the child.
// It waits at most findTimeout for each question before.
func (r *pastProxy) ask(known func() (*way, bool)) *way {
	w, ok := r.question.Ask(context.Background(), question.Source[*way]{Known: known, Holds: (*way).alive, Ask: r.find})
	if !ok {
		return &way{} // the port is closed
	}
	return w
}

// find asks the child, and keeps the way for a while. If no process listens, the way
// is not kept. If a socket belongs to no proxy, the way is kept for as long as the
// socket has been known, since an engine may open the socket before its proxy
// starts.
func (r *pastProxy) find(latest *way) *way {
	ctx, cancel := context.WithTimeout(r.ctx, findTimeout)
	defer cancel()
	l, err := userlandproxy.Find(ctx, r.ports.namespace, protocol(r.udp), r.at)
	if err != nil {
		r.ports.cfg.Log.Debug("a userland proxy could not be looked for", "address", r.at, "error", err)
	}
	w, ttl := r.wayTo(l.Proxy), wayTTL
	if err == nil && w.proxy == nil {
		ttl = min(max(l.Age, minWayTTL), wayTTL)
	}
	latest.forget()
	if l.Age < 0 {
		r.known.Store(nil)
		return w
	}
	r.known.Store(w)
	time.AfterFunc(ttl, func() { r.known.CompareAndSwap(w, nil) })
	return w
}

// wayTo returns a way that bypasses a proxy, or leads to it, or, if proxy is nil, to
// whatever listens.
func (r *pastProxy) wayTo(proxy *userlandproxy.Proxy) *way {
	w := &way{proxy: proxy}
	if proxy == nil {
		return w
	}
	s := r.silent.Load()
	switch {
	case !proxy.Container.IsValid():
		r.ports.cfg.Log.Debug("a userland proxy is not looked through", "address", r.at, "reason", proxy.Problem)
		return w
	case s != nil && s.container == proxy.Container && time.Now().Before(s.end):
		return w
	}
	w.container = proxy.Container
	if led := r.led.Load(); led != nil && led.container == w.container {
		w.past = led.past
	} else {
		w.past = r.ports.newRouter(r.ports.source.Port(protocol(r.udp), w.container, sourceip.Default), r.proxyHeader)
	}
	r.led.Store(w)
	return w
}

// forget ends the watch of the way's proxy; nil is no way yet.
func (w *way) forget() {
	if w != nil {
		w.proxy.Close()
	}
}

// Close stops asking the child.
func (r *pastProxy) Close() {
	r.cancel()
	r.question.Close().forget()
}

// lookingPast is a port with a pastProxy.
type lookingPast struct {
	forwarded
	router *pastProxy
}

// Close implements io.Closer.
func (p lookingPast) Close() error {
	p.router.Close()
	return p.forwarded.Close()
}

// Details implements driver.Detailer.
func (p lookingPast) Details() api.PortDetails {
	d := p.forwarded.Details()
	d.Via = p.router.via()
	return d
}
