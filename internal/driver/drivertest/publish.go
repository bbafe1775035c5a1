package drivertest

import (
	"errors"
	"net"
	"strconv"
	"syscall"
	"testing"
	"time"

	"rootlesskit/api"
	"rootlesskit/internal/driver"
	"rootlesskit/internal/nstest"
)

// patience bounds every wait: what has not come by then does not come.
const patience = time.Minute

// endpoint is where a test publishes its ports.
type endpoint struct {
	*suite
	proto api.Proto
	ip    string
}

// published is a port of the driver.
type published struct {
	spec  api.PortSpec
	close func(t testing.TB)
	// details is nil where the driver does not count.
	details func() api.PortDetails
}

// publish forwards a free port of the host to childPort. It is closed with
// the test.
func (e endpoint) publish(t testing.TB, childPort int) *published {
	t.Helper()
	return e.forward(t, api.PortSpec{Proto: e.proto, ParentIP: e.ip, ParentPort: nstest.FreePort(t), ChildPort: childPort})
}

// forward publishes a port until the test ends or closes it.
func (s *suite) forward(t testing.TB, spec api.PortSpec) *published {
	t.Helper()
	closer, err := s.Ports.Forward(t.Context(), spec)
	if err != nil {
		t.Fatalf("forwarding %+v: %v", spec, err)
	}
	closed := false
	p := &published{spec: spec, close: func(t testing.TB) {
		t.Helper()
		if closed {
			return
		}
		closed = true
		if err := closer.Close(); err != nil {
			t.Errorf("closing %+v: %v", spec, err)
		}
	}}
	t.Cleanup(func() { p.close(t) })
	if d, ok := closer.(driver.Detailer); ok {
		p.details = d.Details
	}
	return p
}

// expectDetails waits for the counters, where the driver counts, to be as they
// have to: a peer may know of an event before it is counted.
func (p *published) expectDetails(t testing.TB, what string, right func(api.PortDetails) bool) {
	t.Helper()
	if p.details == nil {
		return
	}
	for deadline := time.Now().Add(patience); !right(p.details()); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: counted as %+v", what, p.details())
		}
	}
}

// address is where clients reach the port; a wildcard is reached on loopback.
func (p *published) address() string {
	ip := p.spec.ParentIP
	if ip == "" || net.ParseIP(ip).IsUnspecified() {
		ip = "127.0.0.1"
	}
	return net.JoinHostPort(ip, strconv.Itoa(p.spec.ParentPort))
}

// at is the port's address on another IP.
func (p *published) at(ip string) string {
	return net.JoinHostPort(ip, strconv.Itoa(p.spec.ParentPort))
}

// dial connects to the port.
func (p *published) dial(t testing.TB) *net.TCPConn {
	t.Helper()
	return dialTCP(t, p.address())
}

func dialTCP(t testing.TB, address string) *net.TCPConn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	return guard(t, conn.(*net.TCPConn))
}

// guard bounds the life of a connection.
func guard[C net.Conn](t testing.TB, conn C) C {
	_ = conn.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { conn.Close() })
	return conn
}

func (p *published) expectRefused(t testing.TB) {
	t.Helper()
	expectRefused(t, p.address())
}

func expectRefused(t testing.TB, address string) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, patience)
	if err == nil {
		conn.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dialing %s: got %v, want a refused connection", address, err)
	}
}

// expectError publishes what cannot be published.
func (s *suite) expectError(t testing.TB, spec api.PortSpec, want string) {
	t.Helper()
	closer, err := s.Ports.Forward(t.Context(), spec)
	if err == nil {
		closer.Close()
	}
	if err == nil || err.Error() != want {
		t.Errorf("forwarding %+v: got %v, want %s", spec, err, want)
	}
}
