package test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"rootlesskit/internal/driver/drivertest"
)

// The attacks of owning.py: a command that has the launcher's inner half act in its
// place.

// owningRounds is how often each is tried.
const owningRounds = 100

// own runs one of owning.py to its end.
func own(t *testing.T, name string, flags ...string) attacks {
	t.Helper()
	a := attacks{secret: newSecret(t), tries: map[string]int{}}
	port := drivertest.FreePort(t)
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
				if n := a.secret.reached.Load(); attack == "injected" && n < owningRounds {
					t.Errorf("the service on the host's loopback address was reached %d times: %s", n, a.output)
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
