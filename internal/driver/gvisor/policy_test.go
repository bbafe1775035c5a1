package gvisor

import (
	"net/netip"
	"testing"

	"rootlesskit/internal/driver"
)

func testPlan(t *testing.T) *plan {
	t.Helper()
	p, err := newPlan(driver.NetworkConfig{CIDR: netip.MustParsePrefix("10.0.2.0/24"), IPv6: true})
	if err != nil {
		t.Fatal(err)
	}
	return &p
}

func TestPolicyOutbound(t *testing.T) {
	p := testPlan(t)
	open := newPolicy(p, false, false)
	closed := newPolicy(p, true, false)
	noLinkLocal := newPolicy(p, true, true)
	for _, c := range []struct {
		dst                       string
		open, closed, noLinkLocal string // the address connected to, or the verdict
	}{
		{"10.0.2.1", "127.0.0.1", "refuse", "refuse"},
		{"fdc8:5a1d:66e7::1", "::1", "refuse", "refuse"},
		{"10.0.2.3", "refuse", "refuse", "refuse"},
		{"10.0.2.2", "unroutable", "unroutable", "unroutable"},
		{"10.0.2.255", "unroutable", "unroutable", "unroutable"},
		{"fdc8:5a1d:66e7::7", "unroutable", "unroutable", "unroutable"},
		{"127.0.0.1", "discard", "discard", "discard"},
		{"127.9.9.9", "discard", "discard", "discard"},
		{"::1", "discard", "discard", "discard"},
		{"::ffff:127.0.0.1", "discard", "discard", "discard"},
		{"::ffff:198.51.100.7", "discard", "discard", "discard"},
		{"0.0.0.0", "discard", "discard", "discard"},
		{"0.0.0.1", "discard", "discard", "discard"},
		{"::", "discard", "discard", "discard"},
		{"224.0.0.1", "discard", "discard", "discard"},
		{"ff02::1", "discard", "discard", "discard"},
		{"255.255.255.255", "discard", "discard", "discard"},
		{"fe80::1", "unroutable", "unroutable", "unroutable"},
		{"169.254.169.254", "169.254.169.254", "169.254.169.254", "prohibit"},
		{"fd00:ec2::254", "fd00:ec2::254", "fd00:ec2::254", "prohibit"},
		{"198.51.100.7", "198.51.100.7", "198.51.100.7", "198.51.100.7"},
		{"192.168.1.1", "192.168.1.1", "192.168.1.1", "192.168.1.1"},
		{"2001:db8::1", "2001:db8::1", "2001:db8::1", "2001:db8::1"},
	} {
		for i, policy := range []policy{open, closed, noLinkLocal} {
			addr, v := policy.outbound(netip.MustParseAddr(c.dst))
			got := addr.String()
			if v != allow {
				got = map[verdict]string{refuse: "refuse", prohibit: "prohibit", unroutable: "unroutable", discard: "discard"}[v]
			}
			if want := []string{c.open, c.closed, c.noLinkLocal}[i]; got != want {
				t.Errorf("policy %d, %s: %s, want %s", i, c.dst, got, want)
			}
		}
	}
}

// TestLinkLocalIsNotLoopback: --disable-host-loopback leaves clouds' metadata
// services open, --disable-link-local closes them.
func TestLinkLocalIsNotLoopback(t *testing.T) {
	for _, address := range []string{"169.254.169.254", "fd00:ec2::254"} {
		to := netip.AddrPortFrom(netip.MustParseAddr(address), 80)
		for _, disabled := range []bool{false, true} {
			options := []option{withConfig(noHostLoopback)}
			if disabled {
				options = append(options, noLinkLocal)
			}
			s := newSandbox(t, options...)
			accepts(s.host.ListenTCP(t, "tcp", to.String()), echo)
			go echoUDP(udpIn(t, s.host, to.String()))
			conn, err := dial(t, s.child, netip.Addr{}, to)
			udp := connectUDP(t, s.child, to)
			if _, err := udp.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			_, udpErr := udp.Read(make([]byte, 1))
			if disabled {
				if err == nil || udpErr == nil {
					t.Errorf("%s is reached: TCP %v, UDP %v", to, err, udpErr)
				}
				continue
			}
			if err != nil || udpErr != nil {
				t.Errorf("%s is not reached: TCP %v, UDP %v", to, err, udpErr)
				continue
			}
			expectEcho(t, conn, "metadata")
		}
	}
}

func TestPolicyInboundSource(t *testing.T) {
	p := newPolicy(testPlan(t), true, false)
	for _, c := range []struct {
		peer string
		is6  bool
		want string
	}{
		{"203.0.113.5", false, "203.0.113.5"},
		{"::ffff:203.0.113.5", false, "203.0.113.5"},
		{"127.0.0.1", false, "10.0.2.1"},
		{"127.8.8.8", false, "10.0.2.1"},
		{"::ffff:127.0.0.1", false, "10.0.2.1"},
		{"::1", true, "fdc8:5a1d:66e7::1"},
		{"fe80::1%lo", true, "fdc8:5a1d:66e7::1"},
		{"169.254.3.4", false, "10.0.2.1"},
		{"10.0.2.100", false, "10.0.2.1"},
		{"10.0.2.200", false, "10.0.2.1"},
		{"2001:db8::5", false, "10.0.2.1"},
		{"2001:db8::5", true, "2001:db8::5"},
		{"203.0.113.5", true, "fdc8:5a1d:66e7::1"},
	} {
		if got := p.inboundSource(netip.MustParseAddr(c.peer), c.is6); got != netip.MustParseAddr(c.want) {
			t.Errorf("%s seen as %s, want %s", c.peer, got, c.want)
		}
	}
}

func TestPlanFollowsTheCIDR(t *testing.T) {
	for cidr, want := range map[string][3]string{
		"10.0.2.0/24":   {"10.0.2.1", "10.0.2.3", "10.0.2.100/24"},
		"10.77.0.0/16":  {"10.77.0.1", "10.77.0.3", "10.77.0.100/16"},
		"10.0.2.128/25": {"10.0.2.129", "10.0.2.131", "10.0.2.228/25"},
	} {
		p, err := newPlan(driver.NetworkConfig{CIDR: netip.MustParsePrefix(cidr)})
		if err != nil {
			t.Fatal(err)
		}
		if got := [3]string{p.gateway4.String(), p.dns4.String(), p.child4.String()}; got != want {
			t.Errorf("%s: %v, want %v", cidr, got, want)
		}
	}
	for _, cidr := range []string{"10.0.2.0/26", "fd00::/64"} {
		if _, err := newPlan(driver.NetworkConfig{CIDR: netip.MustParsePrefix(cidr)}); err == nil {
			t.Errorf("%s was accepted", cidr)
		}
	}
}
