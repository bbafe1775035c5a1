package nstest

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// FreePort returns a port that is free on all addresses for TCP and UDP. It is
// below the range that the kernel takes the ports of clients from, and every process
// of tests that asks gets the next one: between the question and the use of a port
// nobody else is told of it.
func FreePort(t testing.TB) int {
	t.Helper()
	const lowest, count = 20000, 12000
	for range count {
		if port := lowest + nextNumber(t)%count; isFree(port) {
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// nextNumber counts up in a file that all tests of a user share.
func nextNumber(t testing.TB) int {
	t.Helper()
	f, err := lockShared("port")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(string(text))
	if err != nil { // a new file: the tests of another user count elsewhere
		n = rand.IntN(1_000_000)
	}
	if _, err := f.WriteAt(fmt.Appendf(nil, "%09d", n+1), 0); err != nil {
		t.Fatal(err)
	}
	return n
}

// lockShared opens a file that all tests of a user share, and waits until no other
// process has it.
func lockShared(name string) (*os.File, error) {
	path := filepath.Join(os.TempDir(), fmt.Sprintf("rootlesskit-test-%s.%d", name, os.Getuid()))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// isFree opens the port and closes it, while no program is started: until that has
// taken the place of this one, it has a copy of each descriptor.
func isFree(port int) bool {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	address := ":" + strconv.Itoa(port)
	l, err := net.Listen("tcp", address)
	if err != nil {
		return false
	}
	defer l.Close()
	pc, err := net.ListenPacket("udp", address)
	if err != nil {
		return false
	}
	return pc.Close() == nil
}
