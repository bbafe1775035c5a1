package sourceip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/netns"
	"rootlesskit/internal/wire"
)

// request asks for the plan of a port.
type request struct {
	Proto  int            `json:"proto"` // unix.IPPROTO_TCP or unix.IPPROTO_UDP
	Target netip.AddrPort `json:"target"`
	Kind   Kind           `json:"kind,omitempty"`
	// Backend is "auto", "nft" or "iptables"; empty shows no real address.
	Backend string `json:"backend"`
	// Deaf are addresses where TCP connections were not answered.
	Deaf []netip.Addr `json:"deaf,omitempty"`
	// Family is the family of the clients, which are beyond this host, and so the
	// family of what is made in the namespace; 0: the clients are on the host's
	// loopback, and nothing is made.
	Family int `json:"family,omitempty"`
	// Mute says that a server does not seem to answer any client.
	Mute bool `json:"mute,omitempty"`
}

// probed is the answer to a probe.
type probed struct {
	Backend string `json:"backend"`
	Problem string `json:"problem,omitempty"`
}

const (
	planMethod  wire.Method[request, plan]   = "sourceip.plan"
	probeMethod wire.Method[request, probed] = "sourceip.probe"
)

// Handlers returns the handlers of this package's methods, for the child. Until
// ctx ends, what they have made in the namespace is repaired.
func Handlers(ctx context.Context, ns *netns.Namespace) wire.Handlers {
	return newAgent(ctx, ns, newNFT(), iptables{ns}).handlers()
}

func (a *agent) handlers() wire.Handlers {
	all := wire.Handlers{}
	planMethod.Handle(all, a.answerPlan)
	probeMethod.Handle(all, a.answerProbe)
	return all
}

// backend makes the marks in the calling thread's namespace.
type backend interface {
	name() string
	// usable returns an error if the kernel or the programs lack something. It
	// changes nothing.
	usable() error
	// ensure makes the marks of an address family, if they are missing.
	ensure(af int) error
}

// agent works in the child. It repairs what it has made, because the user's own
// tools may flush it.
type agent struct {
	ctx      context.Context // of the watch
	ns       *netns.Namespace
	backends []backend

	mu      sync.Mutex
	uplinks [2]int // interfaces to the outside, by family
	rules   [2]layer
	marks   [2]layer
	trials  [2]trial // of the marks
	marker  backend  // the backend that has made marks
	watched bool
}

func newAgent(ctx context.Context, ns *netns.Namespace, backends ...backend) *agent {
	a := &agent{ctx: ctx, ns: ns}
	for _, b := range backends {
		a.backends = append(a.backends, known{b, sync.OnceValue(b.usable)})
	}
	return a
}

// known is a backend that is tried only once, since the abilities of a kernel
// do not change.
type known struct {
	backend
	once func() error
}

func (k known) usable() error { return k.once() }

// The families are indices of the agent's fields.
var families = [2]int{unix.AF_INET, unix.AF_INET6}

// layer is something in the namespace that others may undo.
type layer struct {
	made    bool // at least once
	err     error
	checked time.Time // zero until it is first needed
}

// recheck is how often a layer is checked while plans rely on it, in addition
// to the watch, which sees changes neither of routes nor of the older iptables.
// It is also how soon a failed attempt is repeated.
const recheck = 10 * time.Second

// ensure calls make if that is due.
func (l *layer) ensure(make func() error) error {
	if l.checked.IsZero() || time.Since(l.checked) > recheck {
		l.check(make)
	}
	return l.err
}

func (l *layer) check(make func() error) {
	l.err = make()
	l.checked = time.Now()
	l.made = l.made || l.err == nil
}

func (a *agent) answerProbe(_ context.Context, req request) (p probed, fds []int, err error) {
	err = a.ns.Do(func() error {
		p.Backend, p.Problem = a.probe(req.Backend)
		return nil
	})
	return p, nil, err
}

// probe returns the name of the first usable backend, or "none" and why.
func (a *agent) probe(want string) (name, problem string) {
	b, err := a.first(want, backend.usable)
	if b == nil {
		return "none", err.Error()
	}
	return b.name(), ""
}

// first returns the first wanted backend with which try succeeds. If there is
// none, the error describes all attempts.
func (a *agent) first(want string, try func(backend) error) (backend, error) {
	var problems []error
	for _, b := range a.backends {
		if want != b.name() && want != "auto" {
			continue
		}
		err := b.usable()
		if err == nil {
			err = try(b)
		}
		if err == nil {
			return b, nil
		}
		problems = append(problems, err)
	}
	if problems == nil {
		return nil, fmt.Errorf("unknown backend %q", want)
	}
	return nil, errors.Join(problems...)
}

func (a *agent) answerPlan(_ context.Context, req request) (p plan, fds []int, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if req.Backend != "" && req.Family != 0 && !a.watched {
		// Without the watch, plans still check everything from time to time.
		a.watched = a.startWatch(a.ctx) == nil
	}
	err = a.ns.Do(func() (err error) {
		p, err = a.plan(req)
		return err
	})
	return p, nil, err
}

// plan makes the plan of a port, and what it relies on.
func (a *agent) plan(req request) (plan, error) {
	v, uplinks, err := look(req)
	if err != nil {
		return plan{}, err
	}
	if req.Backend == "" || req.Family == 0 {
		p, _ := choose(v)
		p.Backend = "none"
		return p, nil
	}
	a.uplinks = uplinks
	i := slices.Index(families[:], req.Family)
	if i < 0 {
		return plan{}, fmt.Errorf("unknown address family %d", req.Family)
	}
	f := v.both()[i]
	f.err = a.makeRules(i)
	f.rules, f.marks, f.carry = f.err == nil, f.err == nil, f.err == nil
	v.tracked = v.nat || a.marker == nil && conntracked()
	v.paid = v.tracked || a.marker != nil
	p, needsMarks := choose(v)
	if needsMarks {
		a.addMarks(i, f, req)
		p, _ = choose(v)
	}
	p.Backend = a.backendName(req.Backend)
	return p, nil
}

// addMarks makes the marks of a family that has rules, and tries them.
func (a *agent) addMarks(i int, f *family, req request) {
	if f.rules {
		f.err = a.makeMarks(i, req.Backend)
		f.marks, f.carry = f.err == nil, f.err == nil
	}
	if f.carry && f.routed {
		f.err = a.try(i, f.own, req.Mute)
		f.carry = f.err == nil
	}
}

func (a *agent) makeRules(i int) error {
	return a.rules[i].ensure(func() error { return ensureRules(families[i], a.uplinks[i]) })
}

func (a *agent) makeMarks(i int, want string) error {
	return a.marks[i].ensure(func() error {
		if a.marker != nil {
			return a.marker.ensure(families[i])
		}
		marker, err := a.first(want, func(b backend) error { return b.ensure(families[i]) })
		a.marker = marker
		return err
	})
}

// backendName returns the backend that makes the marks, or would make them.
func (a *agent) backendName(want string) string {
	switch {
	case a.marker != nil:
		return a.marker.name()
	case !a.marks[0].checked.IsZero() || !a.marks[1].checked.IsZero(): // it was tried
		return "none"
	}
	name, _ := a.probe(want)
	return name
}

// repair restores what was made and has disappeared.
func (a *agent) repair() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ns.Do(func() error {
		var all error
		for i, af := range families {
			if l := &a.rules[i]; l.made {
				l.check(func() error { return ensureRules(af, a.uplinks[i]) })
				all = errors.Join(all, l.err)
			}
			if l := &a.marks[i]; l.made {
				l.check(func() error { return a.marker.ensure(af) })
				all = errors.Join(all, l.err)
			}
			a.trials[i] = trial{} // a packet filter may have changed
		}
		return all
	})
}
