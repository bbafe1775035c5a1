package test

import (
	"bufio"
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rootlesskit/api"
)

// engine is a run with containers on a bridge, whose ports userland proxies carry
// on.
type engine struct {
	*world
	*kit
	detached bool
}

// startEngine publishes port 8080 of all addresses, both families, TCP and UDP, unless
// the flags publish one. serve is what the containers run before they serve.
func startEngine(t *testing.T, serve string, flags ...string) *engine {
	t.Helper()
	e := &engine{world: newWorld(t), detached: slices.Contains(flags, "--detach-netns")}
	published := slices.ContainsFunc(flags, func(f string) bool { return strings.HasPrefix(f, "--publish=") })
	for _, proto := range []string{"tcp", "udp"} {
		if published {
			break
		}
		flags = append(flags, "--publish=0.0.0.0:8080:127.0.0.1:8080/"+proto+"4", "--publish=[::]:8080:[::1]:8080/"+proto+"6")
	}
	script := testdata(t, "containers.sh")
	command := []string{"sh", script}
	if e.detached {
		command = []string{"sh", "-c", `exec nsenter --net=$ROOTLESSKIT_STATE_DIR/netns sh "$0"`, script}
	}
	if !slices.Contains(flags, "--net=pasta") {
		flags = append(flags, "--net=gvisor-tap-vsock")
	}
	e.kit = newKit(t, append(append([]string{"--ipv6", "--disable-host-loopback"}, flags...), command...)...)
	e.kit.Env = append(os.Environ(), "PEERS="+testdata(t, "peers.py"), "SERVE="+serve)
	e.launch(t, e.kit)
	poll(t, "the containers", func() bool { return strings.Count(e.output.String(), "peers: ready") == 2 })
	return e
}

// inside is a program in the namespace of the engine.
func (e *engine) inside(t *testing.T, args ...string) *exec.Cmd {
	enter := []string{"-U", "--preserve-credentials", "-m", "-t", e.childPID(t)}
	if e.detached {
		enter = append(enter, "nsenter", "--net="+e.stateDir+"/netns")
	} else {
		enter = append(enter, "-n")
	}
	return exec.Command("nsenter", append(enter, args...)...)
}

// proxy starts a userland proxy at port 8080 of a loopback address, and waits until
// it listens. It ends with the test, or by the function returned.
func (e *engine) proxy(t *testing.T, proto, at, container string, env ...string) (stop func()) {
	t.Helper()
	c := netip.MustParseAddrPort(container)
	cmd := e.inside(t, bin("docker-proxy"), "-proto", proto, "-host-ip", at, "-host-port", "8080", "-container-ip", c.Addr().String(), "-container-port", fmt.Sprint(c.Port()))
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(stop)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("docker-proxy says %q: %v", line, err)
	}
	return stop
}

// proxies starts those of TCP and UDP at both loopback addresses.
func (e *engine) proxies(t *testing.T, at4, at6 string, env ...string) (stop func()) {
	t.Helper()
	var stops []func()
	for _, proto := range []string{"tcp", "udp"} {
		stops = append(stops, e.proxy(t, proto, "127.0.0.1", at4, env...), e.proxy(t, proto, "::1", at6, env...))
	}
	return func() {
		for _, stop := range stops {
			stop()
		}
	}
}

// seen is what the container says of a client with an address of its own.
func (e *engine) seen(t *testing.T, proto, client, host string) string {
	t.Helper()
	return e.ask(t, proto, netip.MustParseAddrPort(client), netip.AddrPortFrom(netip.MustParseAddr(host), 8080))
}

// onLoopback is what the container says of a client on the host's loopback.
func (e *engine) onLoopback(t *testing.T, proto, address string) string {
	t.Helper()
	r := runCmd(t, e.command(e.host, "python3", testdata(t, "peers.py"), "ask", proto, address, address, "8080"))
	return strings.TrimSpace(r.stdout) + r.stderr
}

// via are the ways of the four ports, tcp4, tcp6, udp4 and udp6.
func (e *engine) via(t *testing.T) string {
	t.Helper()
	var all []string
	for line := range strings.Lines(e.mustCtl(t, "list-ports", "--wide", "--json")) {
		_, via, _ := strings.Cut(line, `"via":"`)
		via, _, _ = strings.Cut(via, `"`)
		all = append(all, via)
	}
	return strings.Join(all, ", ")
}

const (
	client4, client6 = neighbour4 + ":40001", "[" + neighbour6 + "]:40001"
	// The bridge's addresses are how a container sees what cannot be seen as it is.
	bridge4, bridge6 = "172.17.0.1:", "[fd17::1]:"
)

// TestUserlandProxy: a container sees its clients, though its engine has a userland
// proxy listen in its place.
func TestUserlandProxy(t *testing.T) {
	for _, flags := range [][]string{{"--port-driver=builtin"}, {"--port-driver=builtin", "--detach-netns"}, {"--port-driver=bypass4netns"}, {"--port-driver=gvisor-tap-vsock"}, {"--net=pasta", "--port-driver=pesto"}} {
		t.Run(strings.Join(flags, " "), func(t *testing.T) {
			t.Parallel()
			e := startEngine(t, "", flags...)
			e.proxies(t, "172.17.0.2:80", "[fd17::2]:80")
			for _, proto := range []string{"tcp", "udp"} {
				for client, host := range map[string]string{client4: host4, client6: host6} {
					if got := e.seen(t, proto, client, host); got != "container 2: "+client {
						t.Errorf("%s client %s: %q", proto, client, got)
					}
				}
				for address, want := range map[string]string{"127.0.0.1": bridge4, "::1": bridge6} {
					if got := e.onLoopback(t, proto, address); !strings.HasPrefix(got, "container 2: "+want) {
						t.Errorf("%s client on %s: %q, want %s", proto, address, got, want)
					}
				}
			}
			const way4, way6 = "container 172.17.0.2:80", "container [fd17::2]:80"
			if got := e.via(t); got != strings.Join([]string{way4, way6, way4, way6}, ", ") {
				t.Errorf("the ports are said to lead to %s", got)
			}
			if got := e.mustCtl(t, "list-ports", "--wide"); !strings.Contains(got, " "+way4+" ") {
				t.Errorf("list-ports --wide:\n%s", got)
			}
		})
	}
}

// TestUserlandProxyAtOwnAddress: the proxy listens at the namespace's own address, where
// an engine has it listen that is told that loopback is not reached.
func TestUserlandProxyAtOwnAddress(t *testing.T) {
	for _, driver := range []string{"builtin", "gvisor-tap-vsock"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			e := startEngine(t, "", "--port-driver="+driver, "--publish=0.0.0.0:8080:10.0.2.100:8080/tcp4", "--publish=0.0.0.0:8080:10.0.2.100:8080/udp4")
			for _, proto := range []string{"tcp", "udp"} {
				e.proxy(t, proto, "10.0.2.100", "172.17.0.2:80")
				if got := e.seen(t, proto, client4, host4); got != "container 2: "+client4 {
					t.Errorf("%s: %q", proto, got)
				}
				if got := e.onLoopback(t, proto, "127.0.0.1"); !strings.HasPrefix(got, "container 2: "+bridge4) {
					t.Errorf("%s client on 127.0.0.1: %q", proto, got)
				}
			}
			if got, want := e.via(t), "container 172.17.0.2:80"; got != want+", "+want {
				t.Errorf("the ports are said to lead to %s", got)
			}
		})
	}
}

// TestUserlandProxyIsNotNative: a proxy that binds a port under bypass4netns does not
// get a socket of the host, by which its container would see the bridge; nor does the
// engine that binds it for the proxy.
func TestUserlandProxyIsNotNative(t *testing.T) {
	engine := filepath.Join(t.TempDir(), "dockerd")
	if err := os.Symlink(bin("docker-proxy"), engine); err != nil {
		t.Fatal(err)
	}
	for name, program := range map[string]string{"proxy": bin("docker-proxy"), "engine": engine} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("PROXIES", program+" -proto tcp -host-ip 127.0.0.1 -host-port 8080 -container-ip 172.17.0.2 -container-port 80 &")
			e := startEngine(t, "", "--port-driver=bypass4netns", "--publish=0.0.0.0:8080:127.0.0.1:8080/tcp")
			poll(t, "the proxy", func() bool { return strings.Contains(e.output.String(), "\nready\n") })
			if state, why := e.portState(t, 1); state != api.PortRelay || why != "the server is the userland proxy of a container" {
				t.Errorf("the port is %s: %s", state, why)
			}
			if got := e.seen(t, "tcp", client4, host4); name == "proxy" && got != "container 2: "+client4 {
				t.Errorf("the client is seen as %q", got)
			}
		})
	}
}

// TestUserlandProxyOfOtherFamily: clients over IPv6 of a container with IPv4 alone
// are seen as the bridge, and never as loopback.
func TestUserlandProxyOfOtherFamily(t *testing.T) {
	e := startEngine(t, "", "--port-driver=builtin")
	e.proxies(t, "172.17.0.2:80", "172.17.0.2:80")
	for _, proto := range []string{"tcp", "udp"} {
		if got := e.seen(t, proto, client6, host6); !strings.HasPrefix(got, "container 2: "+bridge4) {
			t.Errorf("%s over IPv6: %q", proto, got)
		}
		if got := e.seen(t, proto, client4, host4); got != "container 2: "+client4 {
			t.Errorf("%s over IPv4: %q", proto, got)
		}
	}
}

// TestUserlandProxyStays: where it may not, or cannot, be looked through, it is the way.
func TestUserlandProxyStays(t *testing.T) {
	for name, c := range map[string]struct {
		driver, flag, serve, container, to, via string // driver: builtin without one
		protos                                  []string
	}{
		"switched off":                                {flag: "--source-ip-transparent=false", container: "172.17.0.2:80", protos: []string{"tcp", "udp"}},
		"command line to elsewhere":                   {container: "10.0.2.2:80", to: "172.17.0.2:80", via: "userland proxy", protos: []string{"tcp", "udp"}},
		"command line to loopback":                    {container: "127.0.0.1:80", to: "172.17.0.2:80", via: "userland proxy", protos: []string{"tcp", "udp"}},
		"command line to elsewhere, gvisor-tap-vsock": {driver: "gvisor-tap-vsock", container: "10.0.2.2:80", to: "172.17.0.2:80", via: "userland proxy", protos: []string{"tcp", "udp"}},
		"command line to the namespace's own address": {driver: "bypass4netns", container: "172.17.0.1:80", to: "172.17.0.2:80", via: "userland proxy", protos: []string{"tcp", "udp"}},
		// Who cannot be answered by the container is carried on as the bridge.
		"no answer": {serve: "ip route del default", container: "172.17.0.2:80", via: "userland proxy", protos: []string{"tcp"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			flags := []string{"--port-driver=" + cmp.Or(c.driver, "builtin")}
			if c.flag != "" {
				flags = append(flags, c.flag)
			}
			e := startEngine(t, c.serve, flags...)
			for _, proto := range c.protos {
				e.proxy(t, proto, "127.0.0.1", c.container, "TO="+c.to)
				for range 3 {
					if got := e.seen(t, proto, neighbour4+":0", host4); !strings.HasPrefix(got, "container 2: "+bridge4) {
						t.Errorf("%s: %q", proto, got)
					}
				}
			}
			leads := func() bool { return e.leadsTo(t) == c.via }
			if c.serve != "" { // the container is tried again after a pause, which gets longer
				poll(t, "the first port to lead to the "+c.via, func() bool {
					e.seen(t, c.protos[0], neighbour4+":0", host4)
					return leads()
				})
			}
			if !leads() {
				t.Errorf("the first port is said to lead to %q, want %q", e.leadsTo(t), c.via)
			}
		})
	}
}

// leadsTo says what list-ports tells about the first port's way.
func (e *engine) leadsTo(t *testing.T) string {
	t.Helper()
	way, _, _ := strings.Cut(e.via(t), ",")
	return way
}

// TestUserlandProxySwapped: the port goes to another container, and back, ten times;
// each request after that is the new one's, and only when nobody listens one is
// refused.
func TestUserlandProxySwapped(t *testing.T) {
	e := startEngine(t, "", "--port-driver=builtin")
	answered := 0
	for round := range 10 {
		n := 2 + round%2
		stop := e.proxies(t, fmt.Sprintf("172.17.0.%d:80", n), fmt.Sprintf("[fd17::%d]:80", n))
		for i := range 30 {
			client := fmt.Sprintf("%s:%d", neighbour4, 41000+30*round+i)
			if got := e.seen(t, "tcp", client, host4); got != fmt.Sprintf("container %d: %s", n, client) {
				t.Errorf("round %d, request %d: %q", round, i, got)
				continue
			}
			answered++
		}
		if got := e.seen(t, "udp", fmt.Sprintf("%s:%d", neighbour4, 41000+round), host4); !strings.HasPrefix(got, fmt.Sprintf("container %d: ", n)) {
			t.Errorf("round %d, UDP: %q", round, got)
		}
		stop()
		if got := e.seen(t, "tcp", neighbour4+":0", host4); strings.HasPrefix(got, "container") {
			t.Errorf("round %d: without a proxy, there is an answer: %q", round, got)
		}
	}
	if answered != 300 {
		t.Errorf("%d of 300 requests were answered by their container", answered)
	}
}

func (e *engine) shellInside(t *testing.T, script string) {
	t.Helper()
	if r := runCmd(t, e.inside(t, "sh", "-ec", "PATH=$PATH:/usr/sbin:/sbin; "+script)); r.code != 0 {
		t.Fatalf("%s: %s", script, r.stderr)
	}
}

// inContainer is the start of a command line, for a shell, in the network of container 3.
const inContainer = `nsenter --net=/proc/$(pgrep --ns $$ --nslist mnt -f '^python3 .*fd17::3/80')/ns/net `

// TestUserlandProxyBeforeContainer: clients come before the container can be reached,
// and see it when it can.
func TestUserlandProxyBeforeContainer(t *testing.T) {
	e := startEngine(t, "", "--port-driver=builtin")
	e.proxy(t, "tcp", "127.0.0.1", "172.17.0.9:80") // nobody is there yet
	e.patience = time.Second
	if got := e.seen(t, "tcp", client4, host4); strings.HasPrefix(got, "container") {
		t.Errorf("an answer of a container that is not there: %q", got)
	}
	e.patience = 30 * time.Second
	e.shellInside(t, inContainer+"ip addr add 172.17.0.9/16 dev eth0")
	e.pollSeen(t)
}

// TestUserlandProxyWaitsForContainer: a client that comes just before the container can be
// reached is its own client, not the proxy's. On a machine that is too busy for that to be
// shown at once, another container is tried.
func TestUserlandProxyWaitsForContainer(t *testing.T) {
	e := startEngine(t, "", "--port-driver=builtin")
	e.patience = 30 * time.Second
	var got string
	for n := 9; n < 19; n++ {
		address := fmt.Sprintf("172.17.0.%d", n)
		stop := e.proxy(t, "tcp", "127.0.0.1", address+":80")
		client := fmt.Sprintf("%s:%d", neighbour4, 42000+n)
		conn, err := e.dial(t, "tcp", netip.MustParseAddrPort(client), netip.AddrPortFrom(netip.MustParseAddr(host4), 8080))
		if err != nil {
			t.Fatal(err)
		}
		poll(t, "the connection to the container", func() bool {
			state := runCmd(t, e.inside(t, "ip", "neigh", "show", address)).stdout
			return strings.Contains(state, "INCOMPLETE") || strings.Contains(state, "FAILED") // too late
		})
		e.shellInside(t, inContainer+"ip addr add "+address+"/16 dev eth0")
		got = e.exchange(conn)
		stop()
		if got == "container 3: "+client {
			return
		}
	}
	t.Errorf("ten clients that came before their container; the last answer: %q", got)
}

// TestUserlandProxyBeforeServer: clients come before the container's server.
func TestUserlandProxyBeforeServer(t *testing.T) {
	e := startEngine(t, "", "--port-driver=builtin")
	e.proxy(t, "tcp", "127.0.0.1", "172.17.0.3:81") // nobody listens yet
	for range 3 {
		if got := e.seen(t, "tcp", neighbour4+":0", host4); strings.HasPrefix(got, "container") {
			t.Errorf("an answer of a server that is not there: %q", got)
		}
	}
	server := e.inside(t, "sh", "-c", "PATH=$PATH:/usr/sbin:/sbin; PEER_NAME='container 3: ' exec "+inContainer+`python3 "$0" tcp/0.0.0.0/81`, testdata(t, "peers.py"))
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Process.Kill(); _ = server.Wait() }()
	e.pollSeen(t)
}

// pollSeen waits until container 3 sees a client.
func (e *engine) pollSeen(t *testing.T) {
	t.Helper()
	got, next := "", clientPort
	poll(t, "a container that sees its client", func() bool {
		next++
		client := fmt.Sprintf("%s:%d", neighbour4, next)
		got = e.seen(t, "tcp", client, host4)
		return got == "container 3: "+client
	})
}
