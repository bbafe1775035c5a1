package unixsock

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func withUmask(t *testing.T, mask int) {
	old := unix.Umask(mask)
	t.Cleanup(func() { unix.Umask(old) })
}

func TestSocketModeWhateverTheUmask(t *testing.T) {
	for _, mask := range []int{0, 0o022, 0o777} {
		socket := filepath.Join(t.TempDir(), "api.sock")
		withUmask(t, mask)
		l, err := Listen(t.Context(), socket)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if fi, err := os.Lstat(socket); err != nil || fi.Mode() != os.ModeSocket|0o600 {
			t.Errorf("umask %#o: mode %v, %v", mask, fi.Mode(), err)
		}
	}
}

// The mode is right from the first moment: whenever the socket is there, it is.
func TestSocketModeIsNeverWider(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "api.sock")
	withUmask(t, 0)
	stop := make(chan struct{})
	seen := make(chan map[os.FileMode]int)
	go func() {
		modes := map[os.FileMode]int{}
		for stopped := false; !stopped; {
			select {
			case <-stop:
				stopped = true
			default:
			}
			if fi, err := os.Lstat(socket); err == nil {
				modes[fi.Mode()]++
			}
		}
		seen <- modes
	}()
	for range 500 {
		l, err := Listen(t.Context(), socket)
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
	// The last one is there until it has been looked at, whoever had the CPU before.
	l, err := Listen(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	close(stop)
	modes := <-seen
	if len(modes) != 1 || modes[os.ModeSocket|0o600] == 0 {
		t.Errorf("the socket was seen with these modes: %v", modes)
	}
}

// A socket that is there can be connected to, from its first moment on.
func TestSocketThatIsThereAnswers(t *testing.T) {
	dir := t.TempDir()
	for i := range 1000 {
		socket := filepath.Join(dir, fmt.Sprint(i))
		connected := make(chan error)
		go func() { connected <- connectOnceThere(socket) }()
		l, err := Listen(t.Context(), socket)
		if err != nil {
			t.Fatal(err)
		}
		if err := <-connected; err != nil {
			t.Fatalf("socket %d: %v", i, err)
		}
		l.Close()
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("in the directory are %v", left)
	}
}

// connectOnceThere waits for a socket by trying to connect to it.
func connectOnceThere(socket string) error {
	for {
		c, err := net.Dial("unix", socket)
		if err == nil {
			return c.Close()
		}
		if !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
}

func TestListenFails(t *testing.T) {
	dir := t.TempDir()
	long := filepath.Join(dir, strings.Repeat("x", 100))
	if _, err := Listen(t.Context(), long); err == nil || !strings.Contains(err.Error(), "choose a shorter state directory") {
		t.Errorf("a path of %d bytes: %v", len(long), err)
	}
	if _, err := Listen(t.Context(), "@abstract"); err == nil || !strings.Contains(err.Error(), "not absolute") {
		t.Errorf("an abstract name: %v", err)
	}
	taken := filepath.Join(dir, "taken")
	if err := os.WriteFile(taken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), taken); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a path that is taken: %v", err)
	}
	if _, err := Listen(t.Context(), filepath.Join(dir, "none", "api.sock")); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a directory that is not there: %v", err)
	}
}

func TestLongestPath(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, strings.Repeat("x", MaxPath-len(dir)-1))
	l, err := Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}
