package netns_test

import (
	"context"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/netns"
	"rootlesskit/internal/nstest"
)

var tcp4 = netns.SocketRequest{Family: unix.AF_INET, Type: unix.SOCK_STREAM, Count: 1}

// forger answers with descriptors of the test's choice.
type forger func() int

func (f forger) Call(context.Context, string, any, any) ([]int, error) { return []int{f()}, nil }

// TestSocketsAreVerified has a child send what it was not asked for.
func TestSocketsAreVerified(t *testing.T) {
	for what, forge := range map[string]forger{
		"a socket of the host": func() int { return socket(t, unix.AF_INET, unix.SOCK_STREAM, 0) },
		"UDP":                  func() int { return socket(t, unix.AF_INET, unix.SOCK_DGRAM, 0) },
		"IPv6":                 func() int { return socket(t, unix.AF_INET6, unix.SOCK_STREAM, 0) },
		"a Unix socket":        func() int { return socket(t, unix.AF_UNIX, unix.SOCK_STREAM, 0) },
		"no socket":            func() int { fd, _ := unix.Open("/dev/null", unix.O_CLOEXEC, 0); return fd },
	} {
		fds, err := netns.Sockets(t.Context(), forge, tcp4)
		if err == nil {
			t.Errorf("%s was taken", what)
		}
		if what == "a socket of the host" && !errors.Is(err, netns.ErrOfHost) {
			t.Errorf("%s: %v", what, err)
		}
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
}

// TestOwnSocket asks for the namespace of sockets, also as kernels before Linux 5.14
// are asked.
func TestOwnSocket(t *testing.T) {
	ours := socket(t, unix.AF_INET, unix.SOCK_STREAM, 0)
	defer unix.Close(ours)
	fds, err := netns.Sockets(t.Context(), nstest.NewChild(t), tcp4)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	for name, own := range map[string]func(int) (bool, error){"cookie": netns.OwnSocket, "inode": netns.OwnByInode} {
		for fd, want := range map[int]bool{ours: true, fds[0]: false} {
			if got, err := own(fd); err != nil || got != want {
				t.Errorf("by %s: %v, %v, want %v", name, got, err, want)
			}
		}
	}
}

func socket(t *testing.T, family, kind, proto int) int {
	t.Helper()
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}
