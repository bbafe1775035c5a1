package bypass

import (
	"errors"
	"sync"

	"rootlesskit/internal/seccomp"
	"rootlesskit/internal/sockio"
)

// maxCalls bounds the calls of each kind that are answered at the same time.
const maxCalls = 256

// session is what a listener belongs to: the command, or a process of a container.
type session struct {
	driver *Ports
	// isolate says that this process makes connect(2) in place of the callers; else
	// connect passes through.
	isolate bool
	netns   uint64 // the cookie of the callers' network namespace
	// published returns the ports that lead to a port of that namespace.
	published func(number uint16) []*port
}

// answer answers calls until no process has the filter any more, or the listener is
// stopped. What takes time runs in a goroutine, so that no caller waits for another.
func (s *session) answer(l *seccomp.Listener) error {
	var calls sync.WaitGroup
	defer l.Close()
	defer calls.Wait()
	binds, connects := make(chan struct{}, maxCalls), make(chan struct{}, maxCalls)
	async := func(room chan struct{}, f func()) {
		calls.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			f()
		})
	}
	for {
		c, err := l.Receive()
		switch {
		case errors.Is(err, seccomp.ErrEnded):
			return nil
		case err != nil:
			return err
		case c.TID == 0, c.Connect && !s.isolate:
			c.Continue()
		case c.Connect:
			s.driver.connect(c, func(f func()) { async(connects, f) })
		default:
			if port, b := s.portOf(c); port != nil {
				async(binds, func() { port.bind(b) })
			} else {
				c.Continue()
			}
		}
	}
}

// portOf returns the published port that a bind is about; nil: it is ignored.
func (s *session) portOf(c seccomp.Call) (*port, *bind) {
	raw, err := c.Sockaddr()
	if err != nil {
		return nil, nil // the kernel rejects it
	}
	addr, ok := sockio.ParseAddr(raw)
	if !ok {
		return nil, nil
	}
	ports := s.published(addr.Port())
	if len(ports) == 1 {
		return ports[0], &bind{Call: c, raw: raw, addr: addr, netns: s.netns}
	}
	for _, port := range ports {
		port.fallBack(errors.New("the port of the namespace is published more than once"))
	}
	return nil, nil
}

// fallBack notes why the fallback serves the port.
func (p *port) fallBack(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.why = why
}
