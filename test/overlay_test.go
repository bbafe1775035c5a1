package test

import (
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"rootlesskit/internal/relay"
)

// overlayDrivers are the networks through which the pods of two hosts reach each
// other, with the port drivers that let the other host's tunnel in. lxc-user-nic is not
// among them: its frames go to a bridge of the host's and are none of the launcher's.
var overlayDrivers = []struct {
	net, ports string
	ipv6       bool // the hosts may be each other's by IPv6
}{
	{"gvisor-tap-vsock", "builtin", true},
	{"gvisor-tap-vsock", "gvisor-tap-vsock", false},
	{"slirp4netns", "builtin", true},
	{"slirp4netns", "slirp4netns", false},
	{"pasta", "implicit", true},
	{"pasta", "pesto", true},
}

const (
	overlayPort    = 4789 // of the tunnel, on both hosts
	overlayHeaders = 70   // the most that a tunnel puts before a pod's packet
)

// TestOverlay has the pods of two hosts reach each other, each behind a launcher of its
// own. What is in a tunnel the kernel gives to the device without a checksum, and in
// packets larger than the MTU.
func TestOverlay(t *testing.T) {
	t.Parallel()
	for _, tunnel := range []string{"vxlan", "vxlan6", "geneve", "gre"} {
		t.Run(tunnel, func(t *testing.T) {
			if problem := noTunnel(t, tunnel); problem != "" {
				t.Skipf("an ordinary user gets no such tunnel from this kernel: %s", problem)
			}
			for _, d := range overlayDrivers {
				if tunnel == "vxlan6" && !d.ipv6 {
					continue
				}
				for _, mtu := range []int{1500, 65520} {
					t.Run(fmt.Sprint(d.net, " ", d.ports, " ", mtu), func(t *testing.T) {
						t.Parallel()
						o := overlay{newWorld(t), []string{"--net=" + d.net, "--port-driver=" + d.ports, fmt.Sprint("--mtu=", mtu)}, tunnel, mtu}
						if d.net == "pasta" && tunnel == "vxlan6" {
							o.tunnel = "vxlan6-zerocsum" // pasta's fault: see docs/network.md
						}
						o.carries(t)
					})
				}
			}
		})
	}
}

// overlay is a tunnel between two launchers with the same flags.
type overlay struct {
	*world
	flags  []string
	tunnel string
	mtu    int
}

// carries makes the overlay, and tries it with all kinds of packets and then with many
// flows.
func (o overlay) carries(t *testing.T) {
	t.Helper()
	one := o.startPod(t, o.flags, o.tunnel, 1, o.mtu)
	two := o.startPod(t, o.flags, o.tunnel, 2, o.mtu)
	one.reaches(t, 2)
	two.reaches(t, 1)
	one.carry(t, "10.244.0.2", 1000)
}

// TestOverlayOfFewPorts: VXLAN has a source port for each flow of the pods, which the
// launcher keeps apart like other UDP clients; srcport bounds their number.
func TestOverlayOfFewPorts(t *testing.T) {
	w := newWorld(t)
	flags := []string{"--net=gvisor-tap-vsock", "--port-driver=builtin", "--mtu=1500"}
	for _, tunnel := range []string{"vxlan", "few-ports"} {
		one := w.startPod(t, flags, tunnel, 1, 1500)
		two := w.startPod(t, flags, tunnel, 2, 1500)
		one.reaches(t, 2)
		before := one.descriptors(t)
		one.carry(t, "10.244.0.2", 1000)
		more := one.descriptors(t) - before
		t.Logf("%s: 1,000 flows by TCP and by UDP take %d descriptors", tunnel, more)
		// A port each way, and what is kept ready.
		if few := 2*8 + relay.PoolSize; tunnel == "few-ports" && more > few || tunnel == "vxlan" && more <= few {
			t.Errorf("%s: 1,000 flows take %d descriptors", tunnel, more)
		}
		one.end()
		two.end()
	}
}

// noTunnel tells why there is no tunnel of a kind, if so.
func noTunnel(t *testing.T, kind string) string {
	t.Helper()
	r := runCmd(t, exec.CommandContext(t.Context(), "unshare", "--user", "--map-root-user", "--net",
		"sh", testdata(t, "overlay.sh"), kind, host4, fmt.Sprint(overlayPort)))
	if r.code == 0 {
		return ""
	}
	return fmt.Sprintf("code %d: %s", r.code, r.stderr)
}

// pod is one behind a launcher; mtu is that of its device.
type pod struct {
	*kit
	pid string
	mtu int
}

// startPod starts a launcher on one of the world's two networks, with the node of that
// number and its pod.
func (w *world) startPod(t *testing.T, flags []string, tunnel string, number, mtu int) *pod {
	t.Helper()
	network, own, other := w.host, host4, neighbour4
	if strings.HasPrefix(tunnel, "vxlan6") {
		own, other = host6, neighbour6
	}
	if number == 2 {
		network, own, other = w.outside.PID, other, own
	}
	p := &pod{mtu: mtu - overlayHeaders}
	args := append([]string{"--disable-host-loopback", "--ipv6"}, flags...)
	if publish := fmt.Sprintf("--publish=[%s]:%d:%[2]d/udp", own, overlayPort); !slices.Contains(flags, "--port-driver=implicit") {
		args = append(args, publish)
	}
	p.kit = newKit(t, append(args, "sh", testdata(t, "overlay.sh"), tunnel, other, fmt.Sprint(overlayPort),
		fmt.Sprint(number), fmt.Sprint(p.mtu), bin("tool"))...)
	w.launchIn(t, network, p.kit)
	said := regexp.MustCompile(`(?m)^pod: (\d+)$`)
	poll(t, "the pod and its server", func() bool {
		output := p.output.String()
		if found := said.FindStringSubmatch(output); found != nil {
			p.pid = found[1]
		}
		return p.pid != "" && strings.Contains(output, "echo: ready\n")
	})
	return p
}

// end kills the launcher, and with it all that is in the pod.
func (p *pod) end() {
	_ = p.Process.Kill()
	<-p.ended
}

// inPod runs a program in the network of a pod.
func (p *pod) inPod(t *testing.T, args ...string) result {
	t.Helper()
	return runCmd(t, exec.CommandContext(t.Context(), "nsenter", append([]string{"--user", "--preserve-credentials",
		"--target=" + p.childPID(t), "--net=/proc/" + p.pid + "/ns/net"}, args...)...))
}

// carry has data go from a pod to an address and back.
func (p *pod) carry(t *testing.T, address string, flows int) {
	t.Helper()
	r := p.inPod(t, bin("tool"), "carry", "["+address+"]:7", strconv.Itoa(flows))
	t.Logf("to %s:\n%s", address, r.stdout)
	if r.code != 0 {
		t.Fatalf("to %s: %s", address, r.stderr)
	}
}

// reaches checks that all kinds of packets get from a pod to that of a number, and back.
func (p *pod) reaches(t *testing.T, number int) {
	t.Helper()
	for address, headers := range map[string]int{"10.244.0.%d": 28, "fd00:244::%d": 48} { // of IP and ICMP
		address = fmt.Sprintf(address, number)
		poll(t, "an echo", func() bool { return p.inPod(t, "ping", "-c1", "-W1", address).code == 0 })
		for _, size := range []int{0, 1000, p.mtu - headers} {
			poll(t, fmt.Sprintf("an echo of %d bytes from %s", size, address), func() bool { // a busy machine loses some
				return p.inPod(t, "ping", "-c1", "-W1", "-Mdo", fmt.Sprint("-s", size), address).code == 0
			})
		}
		p.carry(t, address, 0)
	}
}
