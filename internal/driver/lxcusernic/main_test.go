package lxcusernic

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"rootlesskit/internal/nstest"
)

// worldEnv tells the tests, which run as another user, that there is a bridge, and
// where rootlesskit is.
const worldEnv = "LXCUSERNIC_TEST_WORLD"

// bareEnv is the path of a file: while it is there, leases are without a router and
// a name server.
const bareEnv = "LXCUSERNIC_TEST_BARE"

// refuseEnv is the path of a file with which a test asks the server to refuse a lease
// that it has renewed before. The server takes the file away then.
const refuseEnv = "LXCUSERNIC_TEST_REFUSE"

// TestMain makes the host of the tests: only root can make a bridge that a
// setuid program works on, so it is made before the tests give root up, in a
// network namespace that ends with them.
func TestMain(m *testing.M) {
	if os.Geteuid() == 0 && os.Getenv(worldEnv) == "" {
		program, err := buildProgram()
		if err == nil {
			runtime.LockOSThread() // what this thread starts is in the namespace, too
			err = makeWorld()
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "making the host of the tests: %v\n", err)
			os.Exit(1)
		}
		os.Setenv(worldEnv, program)
		nstest.AtExit(func() { os.RemoveAll(filepath.Dir(program)) })
	}
	nstest.Main(m, Handlers)
}

// buildProgram builds rootlesskit where the test user can execute it.
func buildProgram() (string, error) {
	dir, err := os.MkdirTemp("", "rootlesskit-lxc-test")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	marks := filepath.Join(dir, "marks")
	if err := os.Mkdir(marks, 0o755); err != nil {
		return "", err
	}
	if err := os.Chmod(marks, 0o777); err != nil {
		return "", err
	}
	os.Setenv(bareEnv, filepath.Join(marks, "bare"))
	os.Setenv(refuseEnv, filepath.Join(marks, "refuse"))
	program := filepath.Join(dir, "rootlesskit")
	cmd := exec.Command("go", "build", "-o", program, "rootlesskit/cmd/rootlesskit")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building rootlesskit: %w\n%s", err, out)
	}
	return program, nil
}

const (
	bridgeName = "lxcbr0"
	serverIP   = "10.77.0.1"
	leaseTime  = 4 * time.Second
)

func makeWorld() error {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	// lxc-user-nic looks for the bridge in /sys, which shows the devices of the
	// namespace that it was mounted in.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("mounting /sys: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName}}
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("adding %s: %w", bridgeName, err)
	}
	addr, err := netlink.ParseAddr(serverIP + "/24")
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(bridge, addr); err != nil {
		return err
	}
	for _, link := range []netlink.Link{lo, bridge} {
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
	}
	d := &dhcpServer{granted: map[string]*grant{}}
	s, err := server4.NewServer(bridgeName, &net.UDPAddr{IP: net.IPv4zero, Port: dhcpv4.ServerPort}, d.handle)
	if err != nil {
		return fmt.Errorf("a DHCP server: %w", err)
	}
	go func() { _ = s.Serve() }()
	return nil
}

// dhcpServer renews each lease at least once. When a test wants that, it refuses, and
// has another address for who asks then. Until then a client keeps its address, however
// often it asks.
type dhcpServer struct {
	mu      sync.Mutex
	granted map[string]*grant // by MAC
	last    byte
}

type grant struct {
	ip       net.IP
	renewals int
	refused  bool
}

// renew refuses once and for all: the client may have to ask again for the answer.
func (g *grant) renew() {
	g.renewals++
	if g.renewals > 1 && os.Remove(os.Getenv(refuseEnv)) == nil {
		g.refused = true
	}
}

func (d *dhcpServer) handle(conn net.PacketConn, peer net.Addr, m *dhcpv4.DHCPv4) {
	d.mu.Lock()
	defer d.mu.Unlock()
	g := d.granted[m.ClientHWAddr.String()]
	kind := dhcpv4.MessageTypeAck
	switch {
	case m.MessageType() == dhcpv4.MessageTypeDiscover:
		if g == nil || g.refused {
			d.last++
			g = &grant{ip: net.IPv4(10, 77, 0, 50+d.last)}
			d.granted[m.ClientHWAddr.String()] = g
		}
		kind = dhcpv4.MessageTypeOffer
	case g == nil:
		return
	case !m.ClientIPAddr.IsUnspecified(): // a renewal
		if g.renew(); g.refused {
			kind = dhcpv4.MessageTypeNak
		}
	}
	server := net.ParseIP(serverIP)
	options := []dhcpv4.Modifier{
		dhcpv4.WithMessageType(kind), dhcpv4.WithServerIP(server), dhcpv4.WithYourIP(g.ip),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(server)),
		dhcpv4.WithOption(dhcpv4.OptSubnetMask(net.CIDRMask(24, 32))),
		dhcpv4.WithOption(dhcpv4.OptIPAddressLeaseTime(leaseTime)),
	}
	if _, err := os.Stat(os.Getenv(bareEnv)); err != nil {
		options = append(options, dhcpv4.WithOption(dhcpv4.OptRouter(server)), dhcpv4.WithOption(dhcpv4.OptDNS(server)))
	}
	reply, err := dhcpv4.NewReplyFromRequest(m, options...)
	if err == nil {
		_, _ = conn.WriteTo(reply.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ClientPort})
	}
}
