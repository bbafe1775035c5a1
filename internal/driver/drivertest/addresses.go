package drivertest

import (
	"fmt"
	"maps"
	"net"
	"testing"
	"time"

	"rootlesskit/api"
	"rootlesskit/internal/nstest"
)

// addresses are the tests of which address of the host leads to which of the
// namespace, for tcp or udp with their strict forms.
func (s *suite) addresses(transport api.Proto) func(t *testing.T) {
	return func(t *testing.T) {
		if !s.has(transport) {
			return
		}
		a := addressing{s, transport}
		run(t, "Wildcard", true, a.testWildcard)
		run(t, "StrictFamilies", s.has(transport+"6"), a.testStrictFamilies)
		run(t, "FamiliesCoexist", s.has(transport+"6"), a.testFamiliesCoexist)
		run(t, "SecondLoopback", s.loopback() && s.can(SameLoopback), a.testSecondLoopback)
		run(t, "LoopbackIPv6", s.loopback() && s.can(SameLoopback), a.testLoopbackIPv6)
		run(t, "ChosenChildIP", s.loopback(), a.testChosenChildIP)
		run(t, "WildcardInUse", true, a.testWildcardInUse)
		run(t, "PartlyInUse", true, a.testPartlyInUse)
		run(t, "WrongFamily", s.has(transport+"6"), a.testWrongFamily)
		run(t, "NotOurAddress", true, a.testNotOurAddress)
	}
}

type addressing struct {
	*suite
	transport api.Proto
}

// serve has a server on one address of the namespace, or on all, which answers
// with word.
func (a addressing) serve(t testing.TB, ip, word string) (port int) {
	t.Helper()
	if a.transport == "udp" {
		port = a.nextPort()
		answerDatagrams(t, a.listenUDP(t, ip, port), word)
		return port
	}
	l := a.listenTCPOn(t, ip)
	l.serve(t, greet(word))
	return l.port
}

// expect checks which server an address of the host leads to.
func (a addressing) expect(t testing.TB, address, word string) {
	t.Helper()
	if a.transport == "udp" {
		if err := ask(dialUDP(t, address), "", word); err != nil {
			t.Errorf("%s: %v", address, err)
		}
		return
	}
	expectMessageAndEnd(t, dialTCP(t, address), word)
}

// expectNothing checks that nothing listens on an address of the host.
func (a addressing) expectNothing(t testing.TB, address string) {
	t.Helper()
	if a.transport == "tcp" {
		expectRefused(t, address)
		return
	}
	if err := ask(dialUDP(t, address), "", ""); err == nil {
		t.Errorf("%s was answered", address)
	}
}

func (a addressing) publish(t testing.TB, family api.Proto, ip string, childPort int) *published {
	t.Helper()
	return endpoint{a.suite, a.transport + family, ip}.publish(t, childPort)
}

// testWildcard reaches a port by several addresses of both families. For UDP
// the reply has to come from the address that was asked.
func (a addressing) testWildcard(t *testing.T) {
	hosts := []string{"127.0.0.1"}
	if a.transport == "tcp" || a.can(ReplyAddress) {
		hosts = append(hosts, "127.0.0.2")
	}
	if a.can(DualStack) {
		hosts = append(hosts, "::1")
	}
	for _, ip := range []string{"", "0.0.0.0"} {
		port := a.publish(t, "", ip, a.serve(t, "", "word"))
		for _, host := range hosts {
			a.expect(t, port.at(host), "word")
		}
	}
}

func (a addressing) testStrictFamilies(t *testing.T) {
	childPort := a.serve(t, "", "word")
	v4 := a.publish(t, "4", "0.0.0.0", childPort)
	a.expect(t, v4.at("127.0.0.1"), "word")
	a.expectNothing(t, v4.at("::1"))
	v6 := a.publish(t, "6", "::", childPort)
	a.expect(t, v6.at("::1"), "word")
	a.expectNothing(t, v6.at("127.0.0.1"))
}

// testFamiliesCoexist has two ports of the namespace behind one number.
func (a addressing) testFamiliesCoexist(t *testing.T) {
	v4 := a.publish(t, "4", "0.0.0.0", a.serve(t, "", "four"))
	a.forward(t, api.PortSpec{
		Proto: a.transport + "6", ParentIP: "::",
		ParentPort: v4.spec.ParentPort, ChildPort: a.serve(t, "", "six"),
	})
	a.expect(t, v4.at("127.0.0.1"), "four")
	a.expect(t, v4.at("::1"), "six")
}

// testSecondLoopback: a specific address leads to the same one inside.
func (a addressing) testSecondLoopback(t *testing.T) {
	port := a.publish(t, "", "127.0.0.2", a.serve(t, "127.0.0.2", "second"))
	a.expect(t, port.at("127.0.0.2"), "second")
	a.expectNothing(t, port.at("127.0.0.1"))
}

func (a addressing) testLoopbackIPv6(t *testing.T) {
	port := a.publish(t, "", "::1", a.serve(t, "::1", "six"))
	a.expect(t, port.at("::1"), "six")
}

func (a addressing) testChosenChildIP(t *testing.T) {
	for _, childIP := range []string{"127.0.0.5", "::1"} {
		port := a.forward(t, api.PortSpec{
			Proto: a.transport, ParentIP: "127.0.0.1", ParentPort: nstest.FreePort(t),
			ChildIP: childIP, ChildPort: a.serve(t, childIP, childIP),
		})
		a.expect(t, port.address(), childIP)
	}
}

func (a addressing) testWildcardInUse(t *testing.T) {
	port := a.publish(t, "", "", a.nextPort())
	want := fmt.Sprintf("listen %s :%d: bind: address already in use", a.transport, port.spec.ParentPort)
	a.expectError(t, port.spec, want)
}

// testPartlyInUse has one family taken: nothing of the other may stay behind.
func (a addressing) testPartlyInUse(t *testing.T) {
	spec := api.PortSpec{Proto: a.transport, ParentPort: nstest.FreePort(t), ChildPort: a.serve(t, "", "word")}
	release := occupy(t, string(a.transport), fmt.Sprintf("[::1]:%d", spec.ParentPort))
	before := steadyFDs(t)
	a.expectError(t, spec, fmt.Sprintf("listen %s :%d: bind: address already in use", a.transport, spec.ParentPort))
	if leaked := nstest.LeakedFDs(before); len(leaked) > 0 {
		t.Errorf("left open: %v", leaked)
	}
	release()
	a.expect(t, a.forward(t, spec).address(), "word")
}

// steadyFDs returns the open descriptors once they stay the same: after connections, a
// driver refills its reserve of sockets.
func steadyFDs(t testing.TB) map[string]string {
	t.Helper()
	fds, steady := nstest.OpenFDs(), 0
	for deadline := time.Now().Add(time.Minute); steady < 20; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the open descriptors change all the time")
		}
		now := nstest.OpenFDs()
		if steady++; !maps.Equal(now, fds) {
			fds, steady = now, 0
		}
	}
	return fds
}

// occupy takes an address of the host.
func occupy(t testing.TB, transport, address string) (release func()) {
	t.Helper()
	if transport == "udp" {
		pc, err := net.ListenPacket(transport, address)
		if err != nil {
			t.Fatal(err)
		}
		return func() { pc.Close() }
	}
	l, err := net.Listen(transport, address)
	if err != nil {
		t.Fatal(err)
	}
	return func() { l.Close() }
}

func (a addressing) testWrongFamily(t *testing.T) {
	for family, ip := range map[api.Proto]string{"4": "::1", "6": "127.0.0.1"} {
		proto := a.transport + family
		a.expectError(t, api.PortSpec{Proto: proto, ParentIP: ip, ParentPort: nstest.FreePort(t), ChildPort: 80},
			fmt.Sprintf("listen %s: address %s: no suitable address found", proto, ip))
	}
}

func (a addressing) testNotOurAddress(t *testing.T) {
	const documentation = "192.0.2.77" // TEST-NET-1, RFC 5737
	port := nstest.FreePort(t)
	a.expectError(t, api.PortSpec{Proto: a.transport, ParentIP: documentation, ParentPort: port, ChildPort: 80},
		fmt.Sprintf("listen %s %s:%d: bind: cannot assign requested address", a.transport, documentation, port))
}
