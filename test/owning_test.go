package test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"rootlesskit/internal/nstest"
)

// The attacks of owning.py: a command that has the launcher's inner half act in its
// place.

// owningRounds is how often each is tried.
const owningRounds = 100

// own runs one of owning.py to its end.
func own(t *testing.T, name string, flags ...string) attacks {
	t.Helper()
	a := attacks{secret: newSecret(t), tries: map[string]int{}}
	port := nstest.FreePort(t)
	flags = append(flags, "-p", fmt.Sprintf("127.0.0.1:%d:80/tcp", port),
		"python3", "-B", testdata(t, "owning.py"), name, strconv.Itoa(a.secret.port), strconv.Itoa(port))
	k := newKit(t, flags...)
	k.start(t)
	code := k.await(t)
	if a.output = k.output.String(); code != 0 {
		t.Fatalf("code %d: %s", code, a.output)
	}
	a.parse(t)
	return a
}

var ownedNetworks = []string{"gvisor-tap-vsock", "slirp4netns"}

// TestOwnedChild: a command whose connections are watched cannot have the child, on
// which no filter is, make them.
func TestOwnedChild(t *testing.T) {
	for _, network := range ownedNetworks {
		for _, attack := range []string{"injected", "read"} {
			t.Run(network+" "+attack, func(t *testing.T) {
				t.Parallel()
				if attack == "injected" && runtime.GOARCH != "amd64" {
					t.Skip("the attack is written for amd64")
				}
				a := own(t, attack, "--net="+network, "--port-driver=bypass4netns", isolated)
				if n := a.secret.reached.Load(); n > 0 || a.tries["OK"] > 0 || a.total < owningRounds {
					t.Errorf("the service on the host's loopback address was reached %d times, %v: %s", n, a.tries, a.output)
				}
			})
		}
	}
}

// TestOwnedChildUnrefused proves that the attacks are ones: without isolation the
// child is the command's to trace, and gives away what it has.
func TestOwnedChildUnrefused(t *testing.T) {
	for _, network := range ownedNetworks {
		for _, attack := range []string{"injected", "read"} {
			t.Run(network+" "+attack, func(t *testing.T) {
				t.Parallel()
				if attack == "injected" && runtime.GOARCH != "amd64" {
					t.Skip("the attack is written for amd64")
				}
				a := own(t, attack, "--net="+network, "--port-driver=bypass4netns")
				if a.tries["OK"] != a.total || a.total < owningRounds {
					t.Errorf("%v: %s", a.tries, a.output)
				}
				if attack == "injected" {
					poll(t, "the service on the host's loopback address to be reached each time: "+a.output,
						func() bool { return a.secret.reached.Load() >= owningRounds })
				}
			})
		}
	}
}

// TestOwnedProgram has the command mount a program of its own over one that the
// child runs, which is not kept from what the command is.
func TestOwnedProgram(t *testing.T) {
	for flag, want := range map[string]bool{isolated: false, isolated + "=false": true} {
		t.Run(flag, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			dir := t.TempDir()
			program := filepath.Join(dir, "program")
			script := "#!/bin/sh\necho $0 $* >>" + dir + "/ran\nexit 1\n"
			if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
			command := "for p in iptables iptables-restore; do mount --bind " + program + " $(readlink -f $(command -v $p)); done\n" +
				bin("tool") + " serve 10.0.2.100:80"
			k := newKit(t, append(nativeFlags[:4:4], flag, "--source-ip-transparent-backend=iptables", "sh", "-c", command)...)
			w.launch(t, k)
			poll(t, "an answer", func() bool {
				c, err := w.dial(t, "tcp", netip.AddrPortFrom(netip.MustParseAddr(neighbour4), 0), at4)
				if err != nil {
					return false
				}
				defer c.Close()
				_, err = request(c)
				return err == nil
			})
			if _, err := os.Stat(dir + "/ran"); (err == nil) != want {
				t.Errorf("whether the program was run: %v, want %v\n%s", err == nil, want, k.output)
			}
		})
	}
}

// forge has the command answer in the child's place, with sockets of that kind, and
// dials a port that leads to the number of the secret until that many were taken. It
// returns how often a server answered.
func forge(t *testing.T, kind string, s *secret, flags ...string) (answered int) {
	t.Helper()
	port := nstest.FreePort(t)
	inherited, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inherited.Close()
	file, err := inherited.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	dialAll(t, inherited.Addr().String(), 3*owningRounds)
	k := newKit(t, append(flags, "-p", fmt.Sprintf("127.0.0.1:%d:%d/tcp4", port, s.port),
		"python3", "-B", testdata(t, "owning.py"), kind, strconv.Itoa(s.port), strconv.Itoa(port))...)
	k.ExtraFiles = []*os.File{file}
	k.start(t)
	poll(t, "the attack", func() bool { return strings.Contains(k.output.String(), "forging") })
	// The launcher waits a minute for the answer to what the child had read when it was
	// stopped.
	pollFor(t, 3*time.Minute, "a hundred forged sockets", func() bool {
		c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return false
		}
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
		if b, _ := io.ReadAll(c); len(b) > 0 {
			answered++
		}
		numbers := forged.FindAllStringSubmatch(k.output.String(), -1)
		if len(numbers) == 0 {
			return false
		}
		n, _ := strconv.Atoi(numbers[len(numbers)-1][1])
		return n >= owningRounds && (kind != "forge_own" || answered >= owningRounds)
	})
	return answered
}

// dialAll makes connections that stay until the test has ended.
func dialAll(t *testing.T, addr string, n int) {
	for range n {
		c, err := net.Dial("tcp4", addr)
		if err != nil {
			return
		}
		t.Cleanup(func() { c.Close() })
	}
}

var forged = regexp.MustCompile(`forged (\d+)`)

// TestForgedSockets: a command that answers for the child cannot have the parent
// connect a socket of the host, or another kind of socket.
func TestForgedSockets(t *testing.T) {
	t.Parallel()
	for _, network := range ownedNetworks {
		for _, flag := range []string{"--detach-netns=false", "--detach-netns"} {
			for _, kind := range []string{"forge_host", "forge_others"} {
				t.Run(network+flag+kind, func(t *testing.T) {
					t.Parallel()
					s := newSecret(t)
					answered := forge(t, kind, s, "--net="+network, "--port-driver=builtin", isolated, flag)
					if n := s.reached.Load(); n > 0 || answered > 0 {
						t.Errorf("the service on the host's loopback address was reached %d times", n)
					}
				})
			}
		}
	}
}

// TestForgedSocketsOfTheNamespace proves that the forger is listened to: with sockets
// as the child's, its answers are taken.
func TestForgedSocketsOfTheNamespace(t *testing.T) {
	for _, network := range ownedNetworks {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			s := newSecret(t)
			if answered := forge(t, "forge_own", s, "--net="+network, "--port-driver=builtin", isolated); answered < owningRounds {
				t.Errorf("%d connections were answered in the namespace", answered)
			}
			if n := s.reached.Load(); n > 0 {
				t.Errorf("the service on the host's loopback address was reached %d times", n)
			}
		})
	}
}

// TestOwnedOutsiders: of all processes that a command sees, it can trace its own and
// the child, and that only where its connections are not watched.
func TestOwnedOutsiders(t *testing.T) {
	for _, c := range []struct{ flags, traceable string }{
		{"--net=gvisor-tap-vsock --port-driver=builtin", "child"},
		{"--net=slirp4netns --port-driver=slirp4netns", "child"},
		{"--net=pasta --port-driver=implicit", "child"},
		{"--net=gvisor-tap-vsock --port-driver=bypass4netns", ""},
		{"--net=slirp4netns --port-driver=bypass4netns", ""},
	} {
		for _, detached := range []string{"--detach-netns=false", "--detach-netns"} {
			t.Run(c.flags+detached, func(t *testing.T) {
				t.Parallel()
				want := c.traceable
				if detached == "--detach-netns" {
					want = "child" // a filter is on no such command, which is in the host's network
				}
				r := runKit(t, append(strings.Fields(c.flags), isolated, detached, "python3", "-B", testdata(t, "owning.py"), "outsiders", "0", "0")...)
				var traceable []string
				for _, found := range regexp.MustCompile(`(?m)^traceable (.*)$`).FindAllStringSubmatch(r.stdout, -1) {
					traceable = append(traceable, found[1])
				}
				if got := strings.Join(traceable, " "); r.code != 0 || got != want || !strings.Contains(r.stdout, "attacked") {
					t.Errorf("code %d, traceable: %q, want %q\n%s%s", r.code, got, want, r.stdout, r.stderr)
				}
			})
		}
	}
}

// TestLeakIsSaid: where --disable-host-loopback does not hold, the log and --check say
// so.
func TestLeakIsSaid(t *testing.T) {
	for network, want := range map[string]int{"slirp4netns": 1, "gvisor-tap-vsock": 0, "pasta": 0} {
		r := runKit(t, "--net="+network, isolated, "true")
		if n := strings.Count(r.stderr, "in spite of"); r.code != 0 || n != want {
			t.Errorf("%s: code %d, %d lines: %s", network, r.code, n, r.stderr)
		}
		r = runKit(t, "--check", "--net="+network, isolated)
		if n := strings.Count(r.stdout, "in spite of"); n != want {
			t.Errorf("--check --net=%s: %d lines: %s", network, n, r.stdout)
		}
	}
}

// TestBypassManyAddresses: a namespace with thousands of addresses makes no call hang.
func TestBypassManyAddresses(t *testing.T) {
	port := nstest.FreePort(t)
	script := `for i in $(seq 0 8999); do echo addr add 10.8.$((i / 250)).$((i % 250 + 1))/32 dev tap0; done | ip -batch - && echo added
		exec python3 -B ` + testdata(t, "binds.py") + " other_user 80"
	k := startKit(t, "--net=gvisor-tap-vsock", "--port-driver=bypass4netns", isolated, "-p", fmt.Sprintf("127.0.0.1:%d:80/tcp", port), "sh", "-c", script)
	poll(t, "the bind to end", func() bool {
		return strings.Contains(k.output.String(), "PermissionError") || strings.Contains(k.output.String(), "bound to")
	})
	if !strings.Contains(k.output.String(), "added") {
		t.Fatalf("there are no addresses: %s", k.output)
	}
	k.ctl(t, "list-ports", "--wide")
	k.ctl(t, "remove-ports", "1")
}

// TestBypassFlood has a thousand threads bind a port that is native already: what
// others want of the port does not wait for them.
func TestBypassFlood(t *testing.T) {
	port := nstest.FreePort(t)
	k := startKit(t, "--net=gvisor-tap-vsock", "--port-driver=bypass4netns", "-p", fmt.Sprintf("127.0.0.1:%d:80/tcp", port),
		"python3", "-B", testdata(t, "binds.py"), "flood")
	poll(t, "the flood", func() bool { return strings.Contains(k.output.String(), "flooding") })
	const generous = 30 * time.Second // one bind after the other had to wait: a minute and more
	for _, args := range [][]string{{"list-ports", "--wide"}, {"remove-ports", "1"}} {
		start := time.Now()
		k.mustCtl(t, args...)
		if took := time.Since(start); took > generous {
			t.Errorf("%v took %v", args, took)
		} else {
			t.Logf("%v took %v", args, took)
		}
	}
}
