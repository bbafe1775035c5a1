package lxcusernic

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"

	"rootlesskit/internal/driver"
	"rootlesskit/internal/nstest"
)

func flags(set map[string]string) driver.Flags { return driver.FlagValues(Driver().Flags, set) }

func needWorld(t *testing.T) {
	t.Helper()
	if os.Getenv(worldEnv) == "" {
		t.Skip("only root can make a bridge that lxc-user-nic works on: run the tests as root, who becomes the test user then")
	}
}

func attach(t *testing.T, f driver.Flags) (*Network, *nstest.Child, driver.Link, error) {
	t.Helper()
	needWorld(t)
	child := nstest.NewChild(t)
	made, err := New(driver.NetworkConfig{MTU: 1500, Ifname: "eth0"}, f)
	if err != nil {
		t.Fatal(err)
	}
	n := made.(*Network)
	ctx, cancel := context.WithCancel(context.Background())
	link, err := n.Attach(ctx, driver.Sandbox{
		PID: child.PID, NetnsPath: child.NetnsPath(), StateDir: t.TempDir(), Child: child, Log: slog.New(slog.DiscardHandler),
	})
	t.Cleanup(func() {
		cancel()
		if err == nil {
			if err := n.Wait(); err != nil {
				t.Error(err)
			}
		}
	})
	return n, child, link, err
}

// TestLease: an address, a way to the bridge, a renewal, and another address
// when the server refuses to renew.
func TestLease(t *testing.T) {
	begin := time.Now()
	n, child, link, err := attach(t, flags(nil))
	if err != nil {
		t.Fatal(err)
	}
	if !link.DynamicIP || link.Ifname != "eth0" || link.IPv4.Bits() != 24 || len(link.DNS) != 1 || link.DNS[0].String() != serverIP {
		t.Errorf("the link is %+v", link)
	}
	reach(t, child, link.IPv4.Addr())
	refuseRenewal(t, n, link.IPv4)
	if d := time.Since(begin); d < leaseTime*3/4 {
		t.Errorf("another address after %v: the lease was not renewed before", d)
	}
	reach(t, child, n.Link().IPv4.Addr())
}

// TestLauncher: the program's network, for the command or detached.
func TestLauncher(t *testing.T) {
	needWorld(t)
	for _, tt := range []struct{ flag, enter string }{
		{"--detach-netns=false", ""},
		{"--detach-netns", "nsenter --net=$ROOTLESSKIT_STATE_DIR/netns "},
		{"--pidns", ""},
	} {
		script := tt.enter + "ip -4 -o addr show eth0; " + tt.enter + "ping -c 1 -W 5 " + serverIP + "; cat $ROOTLESSKIT_STATE_DIR/resolv.conf"
		cmd := exec.CommandContext(t.Context(), os.Getenv(worldEnv), "--net=lxc-user-nic", tt.flag, "--copy-up=/etc", "sh", "-c", script)
		cmd.WaitDelay = 5 * time.Second
		out, err := cmd.CombinedOutput()
		for _, want := range []string{"inet 10.77.0.", "1 received", "nameserver " + serverIP} {
			if err != nil || !strings.Contains(string(out), want) {
				t.Errorf("%s: %v, no %q in %s", tt.flag, err, want, out)
			}
		}
	}
}

// TestLeaseWithoutRouter: without a router and a name server there is the bridge's network
// alone, and no address is invented; the lease is renewed all the same.
func TestLeaseWithoutRouter(t *testing.T) {
	needWorld(t)
	if err := os.WriteFile(os.Getenv(bareEnv), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(os.Getenv(bareEnv))
	n, child, link, err := attach(t, flags(nil))
	if err != nil {
		t.Fatal(err)
	}
	if len(link.DNS) != 0 || link.IPv4.Bits() != 24 {
		t.Errorf("the link is %+v", link)
	}
	reach(t, child, link.IPv4.Addr())
	refuseRenewal(t, n, link.IPv4)
	reach(t, child, n.Link().IPv4.Addr())

	const script = "ip route; ping -c 1 -W 5 " + serverIP + ""
	for _, flag := range []string{"--detach-netns=false", "--detach-netns"} {
		enter := map[string]string{"--detach-netns": "exec nsenter --net=$ROOTLESSKIT_STATE_DIR/netns "}[flag] + "sh -c '" + script + "'"
		cmd := exec.CommandContext(t.Context(), os.Getenv(worldEnv), "--net=lxc-user-nic", flag, "--copy-up=/etc", "sh", "-c", enter)
		cmd.WaitDelay = 5 * time.Second
		out, err := cmd.CombinedOutput()
		if text := string(out); err != nil || !strings.Contains(text, "10.77.0.0/24 dev eth0") || strings.Contains(text, "default") ||
			!strings.Contains(text, "1 received") {
			t.Errorf("%s: %v: %s", flag, err, out)
		}
	}
}

// refuseRenewal has the server refuse the lease of an address, and waits until there is
// another. Before that, the address stays valid for as long as a test needs it.
func refuseRenewal(t *testing.T, n *Network, old netip.Prefix) {
	t.Helper()
	if err := os.WriteFile(os.Getenv(refuseEnv), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(2 * time.Minute); n.Link().IPv4 == old || !n.Link().IPv4.IsValid(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the address stays, though its lease was refused")
		}
	}
}

// reach connects from the bridge to a server of the child on its address.
func reach(t *testing.T, child *nstest.Child, ip netip.Addr) {
	t.Helper()
	l := child.ListenTCP(t, "tcp4", ip.String()+":80")
	defer l.Close()
	c, err := net.DialTimeout("tcp4", ip.String()+":80", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if host := c.LocalAddr().(*net.TCPAddr).IP.String(); host != serverIP {
		t.Errorf("reached from %s", host)
	}
}

func TestNoBridge(t *testing.T) {
	_, _, _, err := attach(t, flags(map[string]string{bridgeFlag: "nosuch0"}))
	if err == nil || !strings.Contains(err.Error(), `there is no bridge "nosuch0" in the host`) {
		t.Errorf("got %v", err)
	}
}

func TestNoProgram(t *testing.T) {
	_, err := New(driver.NetworkConfig{}, flags(map[string]string{binaryFlag: "nosuch"}))
	if err == nil || err.Error() != `exec: "nosuch": executable file not found in $PATH` {
		t.Errorf("got %v", err)
	}
}

func TestNewLease(t *testing.T) {
	for _, tt := range []struct {
		name    string
		options []dhcpv4.Modifier
		want    string
	}{
		{"all given", []dhcpv4.Modifier{
			dhcpv4.WithYourIP(net.IPv4(10, 0, 0, 9)), dhcpv4.WithNetmask(net.CIDRMask(20, 32)),
			dhcpv4.WithRouter(net.IPv4(10, 0, 0, 1), net.IPv4(10, 0, 0, 2)), dhcpv4.WithDNS(net.IPv4(10, 0, 0, 3), net.IPv4zero),
			dhcpv4.WithLeaseTime(100), dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionRenewTimeValue, []byte{0, 0, 0, 40})),
		}, "10.0.0.9/20 [10.0.0.1] [10.0.0.3] 1m40s 40s 1m27.5s"},
		{"defaults", []dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4(10, 0, 0, 9))}, "10.0.0.9/8 [] [] 1h0m0s 30m0s 52m30s"},
		{"too short", []dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4(10, 0, 0, 9)), dhcpv4.WithLeaseTime(0)}, "10.0.0.9/8 [] [] 2s 1s 1.75s"},
		{"no address", nil, "the DHCP server gave an unusable address: 0.0.0.0"},
		{"mask", []dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4(10, 0, 0, 9)), dhcpv4.WithNetmask(net.IPv4Mask(255, 0, 255, 0))},
			"the DHCP server gave 10.0.0.9 the mask ff00ff00"},
	} {
		ack, err := dhcpv4.New(tt.options...)
		if err != nil {
			t.Fatal(err)
		}
		l, err := newLease(&nclient4.Lease{ACK: ack})
		got := fmt.Sprintf("%s %v %v %v %v %v", l.Addr, l.Gateways, l.DNS, l.Lifetime, l.Renew, l.Rebind)
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

func FuzzNewLease(f *testing.F) {
	ack, err := dhcpv4.New(dhcpv4.WithYourIP(net.IPv4(10, 0, 0, 9)), dhcpv4.WithNetmask(net.CIDRMask(20, 32)), dhcpv4.WithLeaseTime(100))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ack.ToBytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		ack, err := dhcpv4.FromBytes(b)
		if err != nil {
			return
		}
		l, err := newLease(&nclient4.Lease{ACK: ack})
		if err == nil && (!l.Addr.IsValid() || l.Renew < time.Second || l.Renew >= l.Lifetime || len(l.Gateways) > 1) {
			t.Errorf("%+v", l)
		}
	})
}
