package bypass

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/driver/drivertest"
	"rootlesskit/internal/nstest"
	"rootlesskit/internal/sourceip"
)

func TestMain(m *testing.M) { nstest.Main(m, sourceip.Handlers, Handlers) }

// TestPorts has no command to supervise: the base alone serves. Native ports need
// one, and are tested with the launcher.
func TestPorts(t *testing.T) {
	drivertest.RunPorts(t, func(t *testing.T) drivertest.Setup {
		sb, child := drivertest.Sandbox(t)
		ports, err := New(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		return drivertest.Setup{Ports: ports, Sandbox: sb, Child: child}
	})
}

func FuzzParseSockaddr(f *testing.F) {
	f.Add([]byte{unix.AF_INET, 0, 0, 80, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add(append([]byte{unix.AF_INET6, 0, 0, 80, 0, 0, 0, 0}, make([]byte, 20)...))
	f.Add([]byte{unix.AF_UNIX, 0, 'x'})
	f.Fuzz(func(t *testing.T, b []byte) {
		addr, ok := parseSockaddr(b)
		if ok && addr.Port() != binary.BigEndian.Uint16(b[2:]) {
			t.Errorf("%v: %v", b, addr)
		}
	})
}

func TestParseSockaddr(t *testing.T) {
	v4 := []byte{unix.AF_INET, 0, 0x1f, 0x90, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}
	mapped := append([]byte{unix.AF_INET6, 0, 0, 80, 0, 0, 0, 0}, make([]byte, 20)...)
	copy(mapped[8:], netip.MustParseAddr("::ffff:10.0.2.100").AsSlice())
	for _, c := range []struct {
		raw  []byte
		want string
	}{
		{v4, "127.0.0.1:8080"},
		{v4[:15], "invalid AddrPort"},
		{mapped, "[::ffff:10.0.2.100]:80"},
		{mapped[:24], "[::ffff:10.0.2.100]:80"},
		{mapped[:23], "invalid AddrPort"},
		{nil, "invalid AddrPort"},
	} {
		if got, _ := parseSockaddr(c.raw); got.String() != c.want {
			t.Errorf("%v: %s, want %s", c.raw, got, c.want)
		}
	}
}

func FuzzEpollEntries(f *testing.F) {
	f.Add("        5 events:       19 data:         7fff00000005  pos:0 ino:1f sdev:9")
	f.Add("5 events: x data: 1")
	f.Fuzz(func(t *testing.T, line string) {
		for _, e := range epollEntries([]string{line}, []descriptor{{number: 5}}) {
			if e.target != 5 {
				t.Errorf("%q: %+v", line, e)
			}
		}
	})
}

func TestEpollEntries(t *testing.T) {
	line := "        5 events:     2019 data: 1234567890abcdef  pos:0 ino:1f sdev:9"
	entries := epollEntries([]string{line}, []descriptor{{number: 4}, {number: 5}})
	want := unix.EpollEvent{Events: 0x2019, Fd: int32(-0x6f543211), Pad: 0x12345678}
	if len(entries) != 1 || entries[0].event != want {
		t.Errorf("%+v, want %+v", entries, want)
	}
}
