package seccomp

import (
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"rootlesskit/internal/kernel"
	"rootlesskit/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// data is struct seccomp_data, as x/net/bpf's machine reads it: in big endian.
func data(arch, nr uint32, args ...uint32) []byte {
	b := make([]byte, 64)
	put := func(off int, v uint32) {
		b[off], b[off+1], b[off+2], b[off+3] = byte(v>>24), byte(v>>16), byte(v>>8), byte(v)
	}
	put(offNr, nr)
	put(offArch, arch)
	for i, a := range args {
		put(offArgs+8*i, a)
	}
	return b
}

func TestFilter(t *testing.T) {
	if syscalls.bind == 0 {
		t.Skip("the driver does not know this architecture, and relays")
	}
	const allowed, asked, refused, absent = unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_USER_NOTIF,
		unix.SECCOMP_RET_ERRNO | uint32(unix.EOPNOTSUPP), unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	native, other := syscalls, compat
	for _, c := range []struct {
		what           string
		data           []byte
		plain, isolate uint32
	}{
		{"bind", data(native.audit, native.bind), asked, asked},
		{"connect", data(native.audit, native.connect), allowed, asked},
		{"read", data(native.audit, unix.SYS_READ), allowed, allowed},
		{"io_uring_setup", data(native.audit, native.ioUringSetup), allowed, absent},
		{"setsockopt", data(native.audit, native.setsockopt, 0, unix.IPPROTO_TCP, unix.TCP_NODELAY), allowed, allowed},
		{"setsockopt TCP_ULP", data(native.audit, native.setsockopt, 0, unix.IPPROTO_TCP, tcpULP), allowed, unix.SECCOMP_RET_ERRNO | uint32(unix.ENOENT)},
		{"sendto", data(native.audit, native.sendto, 0, 0, 0, 0), allowed, allowed},
		{"sendto fast open", data(native.audit, native.sendto, 0, 0, 0, unix.MSG_FASTOPEN|1), allowed, refused},
		{"sendmsg fast open", data(native.audit, native.sendmsg, 0, 0, unix.MSG_FASTOPEN), allowed, refused},
		{"sendmmsg fast open", data(native.audit, native.sendmmsg, 0, 0, 0, unix.MSG_FASTOPEN), allowed, refused},
		{"bind of the other", data(other.audit, other.bind), asked, asked},
		{"connect of the other", data(other.audit, other.connect), allowed, asked},
		{"sendto fast open of the other", data(other.audit, other.sendto, 0, 0, 0, unix.MSG_FASTOPEN), allowed, refused},
		{"an unknown architecture", data(1, native.bind), allowed, allowed},
	} {
		for _, p := range []struct {
			policy Policy
			want   uint32
		}{{Policy{}, c.plain}, {Policy{Isolate: true}, c.isolate}} {
			vm, err := bpf.NewVM(p.policy.program())
			if err != nil {
				t.Fatal(err)
			}
			if got, err := vm.Run(c.data); err != nil || uint32(got) != p.want {
				t.Errorf("%s, isolate %v: %#x %v, want %#x", c.what, p.policy.Isolate, got, err, p.want)
			}
		}
	}
}

// TestSocketcall has the arguments in the one call of old 32-bit programs.
func TestSocketcall(t *testing.T) {
	if compat.socketcall == 0 {
		t.Skip("this architecture has no socketcall")
	}
	const allowed, asked, refused = unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_USER_NOTIF, unix.SECCOMP_RET_ERRNO | uint32(unix.EOPNOTSUPP)
	for call, want := range map[uint32]uint32{callBind: asked, callConnect: asked, callSendto: refused, 1: allowed} {
		vm, _ := bpf.NewVM(Policy{Isolate: true}.program())
		if got, _ := vm.Run(data(compat.audit, compat.socketcall, call)); uint32(got) != want {
			t.Errorf("socketcall %d: %#x, want %#x", call, got, want)
		}
	}
}

// needsNotifications skips a test of what native ports are made of.
func needsNotifications(t *testing.T) {
	t.Helper()
	if syscalls.bind == 0 {
		t.Skip("the driver does not know this architecture, and relays")
	}
	nstest.Needs(t, kernel.Notifications, kernel.PidfdGetfd)
}

func TestProbe(t *testing.T) {
	needsNotifications(t)
	if err := Probe(); err != nil {
		t.Error(err)
	}
}
