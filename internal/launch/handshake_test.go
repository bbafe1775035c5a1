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

// FuzzAwaitStage: whatever a stage says, the child knows whether the command runs, and
// keeps no descriptor of a command that does not.
func FuzzAwaitStage(f *testing.F) {
	for _, s := range []string{`{"kind":"policy","body":{}}`, `{"kind":"policy","body":{"policyError":"x"}}`, `{"kind":"unexecuted","error":"x"}`, `{"kind":"policy"}`, "{"} {
		f.Add([]byte(s), []byte(""))
		f.Add([]byte(`{"kind":"policy","body":{}}`), []byte(s))
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		conn, stage, err := wire.Pair()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for _, packet := range [][]byte{first, second} {
			if len(packet) > 0 {
				_ = unix.Sendmsg(int(stage.Fd()), packet, unix.UnixRights(0), nil, 0)
			}
		}
		stage.Close()
		s := awaitStage(conn)
		defer closeFDs(s.listener)
		if s.err != nil && len(s.listener) > 0 {
			t.Errorf("%q, %q: %v, with descriptors", first, second, s.err)
		}
		if len(first) == 0 && len(second) == 0 && s.err != nil {
			t.Errorf("the command was executed: %v", s.err)
		}
	})
}

// TestReceiveSetup: what a child makes of a parent that does not keep to the
// handshake.
func TestReceiveSetup(t *testing.T) {
	for packet, want := range map[string]string{
		"":                               "waiting for the parent: EOF",
		"{garbage":                       "malformed message",
		`{"kind":"ready"}`:               `expected "setup" from the parent, got "ready"`,
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
