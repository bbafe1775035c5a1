package bypass

import (
	"errors"
	"sync"

	"rootlesskit/internal/seccomp"
	"rootlesskit/internal/sockio"
)

// maxCalls bounds the calls that are being answered; a further one waits.
const maxCalls = 256

// session is those whose calls one listener is asked about: the command, or a
// container.
type session struct {
	driver *Ports
	// isolate says that connect(2) is made for them; else it goes on.
	isolate bool
	netns   uint64 // the cookie of their network namespace
	// published are the ports that lead to a port of that namespace.
	published func(number uint16) []*port
}

// answer answers until nobody asks any more. What takes time has a goroutine, so
// that nobody waits for another.
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

// portOf is the published port that a bind is of, or nil.
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
		port.stay(errors.New("the port of the namespace is published more than once"))
	}
	return nil, nil
}

// stay notes why a port is not native.
func (p *port) stay(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.why = why
}
