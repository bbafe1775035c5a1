package relay

import (
	"net/netip"
	"time"

	"rootlesskit/internal/eventloop"
)

// Since servers start, stop and move, a flow's route is looked up again, but only
// when its client sends, and never while the server answers:
//
//   - A flow is lost if no server was found at the end of its route, or its server
//     has refused. Its datagrams wait for the look-up, so the first one after the
//     server has come back arrives.
//   - A flow is stale if its last reply or look-up was a while ago. This may be
//     normal: a server need not answer, and a client may be slow. So its datagrams are
//     sent, and some are kept until a reply, to be sent again if the server turns out
//     to be elsewhere.
//   - A flow whose route is a guess is stale until a look-up has found its server,
//     even if the guess is answered.
//
// One look-up ("look" below) is for all flows of the port that are in doubt.

// Doubt is a flow whose route is looked up again.
type Doubt struct {
	Client, Local netip.AddrPort
	// Route is its route so far.
	Route Route
	// Answered says that the server has answered the datagrams that it got, Mute
	// that it got some and answered none, Lost that it refused, or that no server
	// was known.
	Answered, Mute, Lost bool
}

// doubts are the flows of a port that are in doubt.
type doubts struct {
	flows   []*udpFlow       // for the next look
	asked   []Doubt          // the same flows, as they were when they came into doubt
	timer   *eventloop.Timer // for the next look; nil if none is needed yet
	looking bool             // a look is in progress
	last    time.Duration
	looked  bool // last is one
}

const (
	// lostPause and stalePause are the least time between two looks.
	lostPause  = 50 * time.Millisecond
	stalePause = 500 * time.Millisecond
	// staleAfter is how long a flow relies on its route.
	staleAfter = time.Second
)

// consider puts a flow in doubt if necessary, when its client sends.
func (f *udpFlow) consider(now time.Duration) {
	if f.fd < 0 || f.inDoubt {
		return
	}
	if !f.lost && !f.route.Unserved && now-f.sure < staleAfter {
		return
	}
	f.inDoubt = true
	d := &f.port.doubts
	d.flows = append(d.flows, f)
	d.asked = append(d.asked, Doubt{
		Client: f.key.clientAddr(), Local: f.via.asked(&f.key), Route: f.route,
		Answered: f.answered && !f.owed, Mute: f.owed && !f.lost, Lost: f.lost,
	})
	f.port.lookSoon(f.lost)
}

// lookSoon schedules the next look, as soon as the pauses allow.
func (p *UDPPort) lookSoon(lost bool) {
	d := &p.doubts
	if d.looking {
		return
	}
	pause := stalePause
	if lost {
		pause = lostPause
	}
	wait := time.Duration(0)
	if d.looked {
		wait = max(d.last+pause-p.loop.now(), 0)
	}
	if d.timer != nil {
		if d.timer.When() <= p.loop.now()+wait {
			return
		}
		p.loop.stopTimer(d.timer)
	}
	d.timer = p.loop.after(wait, p.look)
}

// look looks up the routes of the flows in doubt.
func (p *UDPPort) look() {
	d := &p.doubts
	flows, asked := d.flows, d.asked
	d.flows, d.asked, d.timer = nil, nil, nil
	d.looking, d.last, d.looked = true, p.loop.now(), true
	look := p.cfg.lookOneByOne
	if l, ok := p.cfg.Router.(Looker); ok {
		look = l.Look
	}
	go func() {
		routes := look(asked)
		p.loop.mail.Post(func() { p.looked(flows, routes) })
	}()
}

// looked is the answer.
func (p *UDPPort) looked(flows []*udpFlow, routes []Route) {
	d := &p.doubts
	d.looking = false
	for i, f := range flows {
		if !f.closed {
			f.looked(routes[i], d.last)
		}
	}
	if len(d.flows) > 0 {
		lost := false
		for _, f := range d.flows {
			lost = lost || f.lost && !f.closed
		}
		p.lookSoon(lost)
	}
}

// looked applies the route that a look has found, unless the server has
// answered since the look began and the route was not a guess.
func (f *udpFlow) looked(route Route, began time.Duration) {
	f.inDoubt = false
	holds, guess, replied := f.holds, f.route.Unserved, !f.lost && f.sure > began
	f.sure = f.port.loop.now()
	moved := route.Target != f.route.Target || route.Source != f.route.Source || route.Pool != f.route.Pool
	if moved && route.Target.IsValid() && (guess || !replied) {
		f.closeSocket()
		f.take(route)
		return
	}
	if !moved {
		f.route.Unserved = route.Unserved
		f.lost = route.Unserved && !replied
	}
	switch {
	case holds && f.lost && f.seen > began:
		f.consider(f.sure) // a server may have started before what was sent since
	case holds:
		f.sendHeld()
	default:
		f.dropHeld() // they were sent
	}
}

// opened sends the datagrams that a flow holds when it gets its socket: at once,
// unless a server may have started since none was found.
func (f *udpFlow) opened() {
	if f.lost {
		f.holds = true
		f.consider(f.port.loop.now())
		return
	}
	f.sendHeld()
}

// lookOneByOne replaces Look for a Router without it.
func (c *UDPConfig) lookOneByOne(flows []Doubt) []Route {
	routes := make([]Route, len(flows))
	for i, f := range flows {
		routes[i] = c.Router.Route(f.Client, f.Local)
		if !routes[i].Target.IsValid() {
			routes[i] = c.Router.Resolve(f.Client, f.Local)
		}
		if f.Answered || routes[i].Unserved { // no server was found: do not move the flow
			unserved := routes[i].Unserved
			routes[i] = f.Route
			routes[i].Unserved = unserved
		}
	}
	return routes
}
