// Package drivertest is the suite that every port driver has to pass, with
// real namespaces and sockets. A driver's own test is a few lines:
//
//	func TestMain(m *testing.M) { nstest.Main(m) }
//
//	func TestPorts(t *testing.T) {
//		drivertest.RunPorts(t, func(t *testing.T) drivertest.Setup {
//			sb, child := drivertest.Sandbox(t)
//			return drivertest.Setup{Ports: newDriver(t), Sandbox: sb, Child: child}
//		})
//	}
//
// The servers are in the test process, on sockets made inside the namespace.
package drivertest

import (
	"context"
	"log/slog"
	"slices"
	"testing"

	"rootlesskit/api"
	"rootlesskit/internal/driver"
	"rootlesskit/internal/nstest"
)

// Setup is what a suite runs on.
type Setup struct {
	// Ports is the driver under test, not started yet.
	Ports   driver.Ports
	Sandbox driver.Sandbox
	Child   *nstest.Child
	// Link is what the network driver, if any, told of the network.
	Link driver.Link
	// Lacks lists what the driver's backend cannot do. The protocols and
	// whether a port can lead to the namespace's loopback come from Info.
	Lacks []Ability
}

// Ability is something that some backends lack.
type Ability string

const (
	// HalfClose carries the end of one direction over and keeps the other.
	HalfClose Ability = "half-close"
	// Reset answers a reset on one side by a reset on the other.
	Reset Ability = "reset"
	// Refuse resets a client whose port has no server.
	Refuse Ability = "refuse"
	// Cut ends the connections of a port that is removed.
	Cut Ability = "cut"
	// CrossingEnds carries all bytes over where one direction ends after the
	// other did, with bytes under way.
	CrossingEnds Ability = "crossing-ends"
	// Burst takes hundreds of new connections at once. Without it there are few.
	Burst Ability = "burst"
	// CutFlows ends the UDP flows of a port that is removed.
	CutFlows Ability = "cut-flows"
	// DualStack listens on both families by tcp and udp on a wildcard address.
	DualStack Ability = "dual-stack"
	// ReplyAddress answers a datagram from the address that it was sent to,
	// where the port is published on a wildcard address.
	ReplyAddress Ability = "reply-address"
	// SameLoopback leads a loopback address of the host to the same one inside, where
	// the port names no other.
	SameLoopback Ability = "same-loopback"
	// BigDatagram passes datagrams of up to 65,507 bytes.
	BigDatagram Ability = "big-datagram"
)

// Sandbox makes a child in new namespaces, and the Sandbox that drivers see it
// by. Both end with the test.
func Sandbox(t testing.TB) (driver.Sandbox, *nstest.Child) {
	t.Helper()
	child := nstest.NewChild(t)
	return driver.Sandbox{
		PID:       child.PID,
		NetnsPath: child.NetnsPath(),
		StateDir:  t.TempDir(),
		Child:     child,
		Log:       slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}, child
}

// RunPorts runs the whole suite on one driver: what it promises of TCP, of UDP
// and of addresses, as far as its Info declares them, and that it leaves
// nothing open in the end.
func RunPorts(t *testing.T, setup func(t *testing.T) Setup) {
	before := nstest.OpenFDs()
	ok := t.Run("Running", func(t *testing.T) {
		s := &suite{Setup: setup(t)}
		stop := Start(t, s.Setup)
		s.info = s.Ports.Info()
		t.Run("TCP4", s.family("tcp4", "127.0.0.1", s.tcp))
		t.Run("TCP6", s.family("tcp6", "::1", s.tcp))
		t.Run("UDP4", s.family("udp4", "127.0.0.1", s.udp))
		t.Run("UDP6", s.family("udp6", "::1", s.udp))
		t.Run("TCPAddresses", s.addresses("tcp"))
		t.Run("UDPAddresses", s.addresses("udp"))
		s.end(t, stop)
	})
	if leaked := nstest.LeakedFDs(before); ok && len(leaked) > 0 {
		t.Errorf("descriptors left open: %v", leaked)
	}
}

// Start starts the driver of a setup. stop ends it and reports what Wait did;
// it is called at the end of the test where the test does not.
func Start(t testing.TB, s Setup) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	if err := s.Ports.Start(ctx, s.Sandbox, s.Link); err != nil {
		cancel()
		t.Fatalf("starting the driver: %v", err)
	}
	stopped := false
	stop = func() error {
		cancel()
		stopped = true
		return s.Ports.Wait()
	}
	t.Cleanup(func() {
		if stopped {
			return
		}
		if err := stop(); err != nil {
			t.Errorf("the driver ended with: %v", err)
		}
	})
	return stop
}

// suite is one driver under test.
type suite struct {
	Setup
	info      api.PortDriverInfo
	childPort int // the last one used
}

func (s *suite) has(proto api.Proto) bool { return slices.Contains(s.info.Protos, proto) }

func (s *suite) can(a Ability) bool { return !slices.Contains(s.Lacks, a) }

// loopback says whether a port can lead to an address that the spec chose on the
// namespace's loopback.
func (s *suite) loopback() bool { return !s.info.DisallowLoopbackChildIP }

// run runs a subtest where the condition on the driver's abilities holds.
func run(t *testing.T, name string, condition bool, f func(t *testing.T)) {
	if condition {
		t.Run(name, f)
	}
}

// family runs the tests of a protocol that publish on an address, where the
// driver has the protocol.
func (s *suite) family(proto api.Proto, ip string, tests func(t *testing.T, at endpoint)) func(t *testing.T) {
	return func(t *testing.T) {
		if s.has(proto) {
			tests(t, endpoint{s, proto, ip})
		}
	}
}

// end stops the driver while it has a port with a connection.
func (s *suite) end(t *testing.T, stop func() error) {
	at := endpoint{s, "tcp4", "127.0.0.1"}
	port := at.publish(t, s.serveTCP(t, echo))
	client := port.dial(t)
	exchange(t, client, "before the end")
	if err := stop(); err != nil {
		t.Errorf("the driver ended with: %v", err)
	}
	if s.can(Cut) {
		expectEnd(t, client)
	}
	port.expectRefused(t)
}
