package sourceip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"rootlesskit/internal/question"
)

// askTimeout bounds the wait for a child that does not answer. The kernel may have to
// load modules for the first client, which takes seconds on a busy machine; a client
// that waits is better off than one whose whole connection has a wrong address.
// slowAfter is when it is said that clients wait.
const (
	askTimeout = 30 * time.Second
	slowAfter  = 3 * time.Second
)

// asker has what the child said of the ways of some of a port's clients.
type asker struct {
	port    *Port
	family  int                  // of clients beyond this host; 0: on its loopback
	known   atomic.Pointer[plan] // nil where the child has to be asked
	another atomic.Bool          // of the latest plan
	// behindNAT says that the latest plan has clients reckon with NAT.
	behindNAT atomic.Bool
	question  *question.Shared[plan] // of the child
}

// asker returns that for a client.
func (p *Port) asker(client netip.Addr) *asker {
	switch {
	case client.IsLoopback():
		return &p.near
	case client.Is4():
		return &p.far[0]
	}
	return &p.far[1]
}

func (a *asker) near() bool { return a.family == 0 }

// ask returns a plan that known has when it is the turn, or asks the child. A server
// that is mute is looked at for each who asks.
func (a *asker) ask(ctx context.Context, mute bool, known func() (plan, bool)) plan {
	answer, ok := a.question.Ask(ctx, question.Source[plan]{
		Known: known,
		Holds: func(plan) bool { return !mute },
		Ask:   func(plan) plan { return a.call(ctx, mute) },
	})
	if !ok {
		return a.port.fallback()
	}
	return answer
}

// current is the plan that is known.
func (a *asker) current() (plan, bool) {
	if p := a.known.Load(); p != nil {
		return *p, true
	}
	return plan{}, false
}

// call asks the child and keeps its plan.
func (a *asker) call(ctx context.Context, mute bool) plan {
	p := a.port
	req := request{Proto: p.proto, Target: p.target, Kind: p.kind, Backend: p.policy.cfg.Backend, Family: a.family, Mute: mute}
	if deaf := p.deaf.Load(); deaf != nil {
		req.Deaf = []netip.Addr{*deaf}
	}
	answer, err := p.inquire(ctx, req)
	if err != nil {
		answer = p.fallback()
		answer.V4.Problem, answer.V6.Problem = err.Error(), err.Error()
	} else {
		if !a.near() {
			p.policy.backend.Store(&answer.Backend)
		}
		a.another.Store(answer.Another)
		a.behindNAT.Store(answer.LocalNAT.valid() || answer.V4.NAT.valid() || answer.V6.NAT.valid())
	}
	switch {
	case ctx.Err() != nil:
	case answer.Silent && err == nil && !(a.near() && p.fixed()): // who has one way asks no more often
		a.known.Store(nil)
	default: // a failure too: those that wait for the answer must not ask one by one
		a.keep(&answer)
	}
	return answer
}

// inquire asks the child, and says so when that takes long.
func (p *Port) inquire(ctx context.Context, req request) (answer plan, err error) {
	slow := time.AfterFunc(slowAfter, func() {
		p.policy.cfg.Log.Warn(fmt.Sprintf("clients wait: the namespace has not answered for %v how they reach a server; "+
			"the kernel may be loading modules of nf_tables", slowAfter), "target", p.target)
	})
	defer slow.Stop()
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answer, _, err = planMethod.Call(asking, p.policy.cfg.Child, req)
	switch {
	case err == nil:
		err = answer.verify()
	case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("the namespace did not answer within %v how clients reach a server at %s; it is asked again", askTimeout, p.target)
	}
	return answer, err
}

// keep keeps a plan for a while. A timer ends that, rather than Route read the
// clock.
func (a *asker) keep(plan *plan) {
	a.known.Store(plan)
	time.AfterFunc(planTTL, func() { a.known.CompareAndSwap(plan, nil) })
}

// fallback is the plan where the child cannot be asked, a guess.
func (p *Port) fallback() plan {
	target, own, lo := p.target.Addr(), p.policy.cfg.IPv4, loopback4.Addr()
	if target.Is6() {
		own, lo = p.policy.cfg.IPv6, loopback6.Addr()
	}
	if p.kind.implied(target) {
		target = lo
	}
	ways := paths{}
	switch {
	case p.kind == Own && (target.IsUnspecified() || target.IsLoopback()): // where to is not known
		target = netip.Addr{}
	case !target.IsLoopback():
		ways.Plain = target
	case own.IsValid():
		ways.Plain, ways.PlainSource = target, own
	}
	return plan{Silent: true, Local: target, V4: ways, V6: ways}
}
