package test

import (
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rootlesskit/internal/nstest"
)

// secret is a service on the host's loopback address that no command inside may
// reach. Its TCP and its UDP port have one number.
type secret struct {
	port    int
	reached atomic.Int64
}

func newSecret(t *testing.T) *secret {
	t.Helper()
	s := &secret{port: nstest.FreePort(t)}
	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", s.port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	pc, err := net.ListenPacket("udp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	go s.serveTCP(l)
	go s.serveUDP(pc)
	return s
}

func (s *secret) serveTCP(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s.reached.Add(1)
		fmt.Fprintln(c, "the secret")
		c.Close()
	}
}

func (s *secret) serveUDP(pc net.PacketConn) {
	for {
		_, from, err := pc.ReadFrom(make([]byte, 100))
		if err != nil {
			return
		}
		s.reached.Add(1)
		_, _ = pc.WriteTo([]byte("the secret"), from)
	}
}

// attacks is a run of attacks.py.
type attacks struct {
	secret *secret
	output string
	// tries are how often it attacked, with what result: an errno's name, or OK.
	tries map[string]int
	total int
	// opened is how often a port of the host was open that is not published.
	opened int
}

// attack runs one of attacks.py to its end.
func attack(t *testing.T, name string, flags ...string) attacks {
	t.Helper()
	a := attacks{secret: newSecret(t), tries: map[string]int{}}
	port, udpPort := nstest.FreePort(t), nstest.FreePort(t)
	flags = append([]string{
		"--net=gvisor-tap-vsock", "--port-driver=bypass4netns",
		"-p", fmt.Sprintf("127.0.0.1:%d:80/tcp", port), "-p", fmt.Sprintf("127.0.0.1:%d:53/udp", udpPort),
	}, flags...)
	k := newKit(t, append(flags, "python3", "-B", testdata(t, "attacks.py"), name,
		strconv.Itoa(a.secret.port), strconv.Itoa(port), strconv.Itoa(udpPort))...)
	k.start(t)
	if name == "rebound" {
		a.opened = dialUntilEnd(k, port, udpPort)
	}
	code := k.awaitFor(t, 3*waitLimit) // some race for a minute, and thrice
	if a.output = k.output.String(); code != 0 {
		t.Fatalf("code %d: %s", code, a.output)
	}
	a.parse(t)
	return a
}

// dialUntilEnd gives the server connections to accept, and counts those to
// another port.
func dialUntilEnd(k *kit, port, other int) (opened int) {
	for {
		select {
		case <-k.ended:
			return opened
		case <-time.After(20 * time.Millisecond):
		}
		if c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			defer c.Close()
		}
		if c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", other)); err == nil {
			defer c.Close()
			opened++
		}
	}
}

var attacked = regexp.MustCompile(`(?m)^attacked (\d+) (.*)$`)

// parse reads the last line, without which the script has not done its work.
func (a *attacks) parse(t *testing.T) {
	t.Helper()
	line := attacked.FindStringSubmatch(a.output)
	if line == nil {
		t.Fatalf("it did not attack: %s", a.output)
	}
	a.total, _ = strconv.Atoi(line[1])
	for field := range strings.FieldsSeq(line[2]) {
		result, n, _ := strings.Cut(field, "=")
		a.tries[result], _ = strconv.Atoi(n)
	}
	t.Logf("%d tries: %v", a.total, a.tries)
}

const isolated = "--disable-host-loopback"

// TestBypassAttack has a hostile server use its socket of the host against a
// service on the host's loopback address, and for a port that is not published.
func TestBypassAttack(t *testing.T) {
	for _, c := range []struct {
		name    string
		least   int    // tries, below which it is no attack
		refused string // what some of them must have ended with
	}{
		{"af_unspec", 2, "EACCES"},
		{"shut_down", 1, "EACCES"},
		{"fd_swap", 300, "EACCES"},
		{"family_flip", 300, "EACCES"},
		{"io_uring", 1, "ENOSYS"},
		{"rebound", 50, "EACCES"},
		{"fastopen", 6, "ENOTSUP"},
		{"udp", 40, "OK"}, // the namespace's loopback address takes them
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := attack(t, c.name, isolated)
			if n := a.secret.reached.Load(); n > 0 {
				t.Errorf("the service on the host's loopback address was reached %d times: %s", n, a.output)
			}
			if a.opened > 0 {
				t.Errorf("a port of the host was open that is not published: %s", a.output)
			}
			if !strings.Contains(a.output, "native\n") || a.total < c.least || a.tries[c.refused] == 0 {
				t.Errorf("no attack worth the name: %s", a.output)
			}
		})
	}
}

// TestBypassAttackUnrefused proves that the attacks are ones: what isolation
// refuses reaches the service without it.
func TestBypassAttackUnrefused(t *testing.T) {
	for _, name := range []string{"af_unspec", "shut_down", "fd_swap", "family_flip", "io_uring", "rebound", "fastopen"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := attack(t, name)
			if name == "io_uring" && a.total == 1 { // no more than its setup was tried
				t.Skipf("the host refuses io_uring: %v", a.tries)
			}
			poll(t, "the service on the host's loopback address to be reached: "+a.output, func() bool { return a.secret.reached.Load() > 0 })
		})
	}
}

// TestBypassAttackClients has an ordinary client, whose connections to servers
// inside are made for it under isolation. Both must look the same to it.
func TestBypassAttackClients(t *testing.T) {
	for _, flag := range []string{isolated, isolated + "=false"} {
		t.Run(flag, func(t *testing.T) {
			t.Parallel()
			a := attack(t, "clients", flag)
			if n := strings.Count(a.output, "as it should be\n"); n != 10 {
				t.Errorf("%d of 10: %s", n, a.output)
			}
		})
	}
}
