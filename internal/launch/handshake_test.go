package launch

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/wire"
)

// FuzzAwaitReady: whatever comes, it is an answer or an error.
func FuzzAwaitReady(f *testing.F) {
	for _, s := range []string{`{"kind":"ready"}`, `{"kind":"failed","error":"x"}`, `{"kind":"setup"}`, `{`, "", "\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		conn, child, err := wire.Pair()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := unix.Send(int(child.Fd()), packet, 0); err != nil && err != unix.EMSGSIZE {
			t.Fatal(err)
		}
		child.Close()
		m, parseErr := wire.Parse(packet)
		if err := awaitReady(conn); err == nil && (parseErr != nil || m.Kind != kindReady) {
			t.Errorf("%q was taken for ready", packet)
		}
	})
}

// TestReceiveSetup: what a child makes of a parent that does not keep to the
// handshake.
func TestReceiveSetup(t *testing.T) {
	for packet, want := range map[string]string{
		"":                               "waiting for the parent: EOF",
		"{garbage":                       "malformed message",
		`{"kind":"ready"}`:               `expected "setup" of the parent, got "ready"`,
		`{"kind":"setup","body":"text"}`: `malformed body of "setup"`,
		`{"kind":"setup","body":{"stateDir":"/x"}}`: "",
	} {
		conn, parent := childConn(t)
		if packet != "" {
			if err := unix.Send(parent, []byte(packet), 0); err != nil {
				t.Fatal(err)
			}
		}
		unix.Close(parent)
		c := &child{conn: conn}
		_, err := c.recvSetup()
		if want == "" && (err != nil || c.setup.StateDir != "/x") || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %+v, %v", packet, c.setup, err)
		}
	}
}

// childConn is the child's end of a wire, and a descriptor of the parent's.
func childConn(t *testing.T) (*wire.Conn, int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := wire.NewConn(fds[0])
	if err != nil {
		unix.Close(fds[1])
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn, fds[1]
}
