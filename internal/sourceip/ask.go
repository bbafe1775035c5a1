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
// load modules for the first client, which takes seconds on a busy machine; for a
// client, waiting is better than a wrong address for its whole connection. After
// slowAfter, the log says that clients wait.
const (
	askTimeout = 30 * time.Second
	slowAfter  = 3 * time.Second
)

// asker has the child's answer about the ways for some of a port's clients.
type asker struct {
	port    *Port
	family  int                  // of clients beyond this host; 0: on its loopback
	known   atomic.Pointer[plan] // nil if the child has to be asked
	another atomic.Bool          // of the latest plan
	// behindNAT says that in the latest plan, NAT may lead clients further.
	behindNAT atomic.Bool
	question  *question.Shared[plan] // of the child
}

// asker returns the asker for a client.
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
	case answer.Silent && err == nil && !(a.near() && p.fixed()): // with only one way, there is no need to ask more often
		a.known.Store(nil)
	default: // also for a failure: the goroutines that wait for the answer must not all ask in turn
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

// keep keeps a plan for a while. A timer ends that, so that Route need not read
// the clock.
func (a *asker) keep(plan *plan) {
	a.known.Store(plan)
	time.AfterFunc(planTTL, func() { a.known.CompareAndSwap(plan, nil) })
}

// fallback returns a plan for when the child cannot be asked, which is a guess.
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
