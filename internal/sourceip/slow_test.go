package sourceip

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// slowChild answers a question for a plan after a while, or not at all.
type slowChild struct {
	after time.Duration
	asked int
}

func (s *slowChild) Call(ctx context.Context, method string, _, reply any) ([]int, error) {
	if method == string(probeMethod) {
		*reply.(*probed) = probed{Backend: "nft"}
		return nil, nil
	}
	s.asked++
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(s.after):
	}
	lo := loopback4.Addr()
	*reply.(*plan) = plan{Backend: "nft", Found: true, Local: lo, V4: paths{Real: lo, Plain: lo, PlainSource: tap4.Addr(), Serving: []netip.Addr{lo}}}
	return nil, nil
}

func slowPolicy(t *testing.T, child *slowChild) (*Policy, *bytes.Buffer) {
	log := &bytes.Buffer{}
	return New(t.Context(), Config{
		Child: child, Backend: "auto", IPv4: tap4.Addr(), Log: slog.New(slog.NewTextHandler(log, nil)),
	}), log
}

// TestNamespaceIsSlow: the kernel may have to load modules for the first client, on a
// busy machine. It is said what is waited for, and the client is shown all the same.
func TestNamespaceIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy, log := slowPolicy(t, &slowChild{after: 20 * time.Second})
		for _, proto := range []int{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			if r := policy.Port(proto, addrPort("127.0.0.1:80"), Default).Resolve(t.Context(), client4); r.Source != client4 {
				t.Errorf("protocol %d: %+v", proto, r)
			}
		}
		synctest.Wait() // for what is logged beside the answer
		if text := log.String(); !strings.Contains(text, "has not answered for 3s") || !strings.Contains(text, "target=127.0.0.1:80") {
			t.Errorf("what is waited for was not said:\n%s", text)
		}
	})
}

// TestResolveIsShared: many clients come at once before anything is known.
func TestResolveIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		child := &slowChild{after: time.Millisecond}
		policy, _ := slowPolicy(t, child)
		p := policy.Port(unix.IPPROTO_TCP, addrPort("127.0.0.1:1001"), Default)
		if _, ok := p.Route(client4); ok {
			t.Error("a route is known before the child was asked")
		}
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				if r := p.Resolve(t.Context(), client4); r.Source != client4 {
					t.Errorf("route %v", r)
				}
			})
		}
		all.Wait()
		if child.asked != 1 {
			t.Errorf("%d questions, want 1", child.asked)
		}
		if r, ok := p.Route(client4); !ok || r.Source != client4 {
			t.Errorf("route %v, %v", r, ok)
		}
	})
}

// TestNamespaceDoesNotAnswerInTime: clients are served in the plain way then, those that
// wait with one question; the next is asked again, and so are flows that began then.
func TestNamespaceDoesNotAnswerInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		child := &slowChild{after: time.Hour}
		policy, log := slowPolicy(t, child)
		p := policy.Port(unix.IPPROTO_UDP, addrPort("127.0.0.1:80"), Default)
		routes := make(chan Route, 10)
		for range cap(routes) {
			go func() { routes <- p.Resolve(t.Context(), client4) }()
		}
		began := <-routes
		for range cap(routes) - 1 {
			if r := <-routes; r != began || r.Source.Addr() != tap4.Addr() || !r.Unserved {
				t.Errorf("%+v, and %+v", r, began)
			}
		}
		synctest.Wait()
		text := log.String()
		if child.asked != 1 || strings.Contains(text, context.DeadlineExceeded.Error()) || !strings.Contains(text, "did not answer within 30s") {
			t.Errorf("%d questions:\n%s", child.asked, text)
		}
		child.after = 0
		time.Sleep(2 * planTTL) // of the clock of this bubble
		if r := p.Resolve(t.Context(), client4); r.Source != client4 {
			t.Errorf("a later client: %+v", r)
		}
		// The server answers a flow in the plain way, from where it does in any.
		if r := p.Look(t.Context(), []Doubt{{Client: client4, Route: began, Answered: true}})[0]; r.Source != client4 || r.Unserved {
			t.Errorf("a flow that began before: %+v", r)
		}
	})
}
