// Package unixsock opens Unix sockets to listen on, for their owner and root
// only.
package unixsock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// MaxPath is the longest path of a Unix socket: sun_path is 108 bytes
// with its terminating zero (unix(7)).
const MaxPath = 107

// socketMode keeps all other users out: connecting needs write permission for
// the socket (unix(7)).
const socketMode = 0o600

// Listen binds a socket to an absolute path. Nothing may exist there, except a
// socket on which no process listens. Closing the listener removes the socket.
//
// The socket has mode 0600 from the beginning, even in a directory that others
// can enter: bind(2) takes the mode from the socket's own inode, less the
// umask, so Listen sets it there first. (umask(2) would work as well, but it
// affects the whole process, and other goroutines create files at the same
// time.)
func Listen(ctx context.Context, path string) (net.Listener, error) {
	if !filepath.IsAbs(path) { // "@name" would be an abstract socket, which has no mode
		return nil, fmt.Errorf("the socket path %q is not absolute", path)
	}
	if err := checkLength(path); err != nil {
		return nil, err
	}
	return listen(ctx, "unix", path)
}

// ListenIn is like Listen, in an open directory, whatever its path leads to
// now; clients get the path.
func ListenIn(ctx context.Context, dir *os.File, path string) (net.Listener, error) {
	if err := checkLength(path); err != nil {
		return nil, err
	}
	return listen(ctx, "unix", inDir(dir, filepath.Base(path)))
}

// ListenPackets is like Listen, for a SOCK_SEQPACKET socket with a name in a
// directory. Its path may be longer than the kernel allows: clients can reach it in
// the same way as this function. The directory must stay open until the listener is
// closed.
func ListenPackets(ctx context.Context, dir *os.File, name string) (net.Listener, error) {
	return listen(ctx, "unixpacket", inDir(dir, name))
}

func inDir(dir *os.File, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)
}

func checkLength(path string) error {
	if len(path) > MaxPath {
		return fmt.Errorf("the socket path %q is longer than the %d bytes that the kernel allows: choose a shorter state directory", path, MaxPath)
	}
	return nil
}

func listen(ctx context.Context, network, path string) (net.Listener, error) {
	var lc net.ListenConfig
	lc.Control = func(_, _ string, conn syscall.RawConn) (err error) {
		if e := conn.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), socketMode) }); e != nil {
			return e
		}
		return err
	}
	l, err := lc.Listen(ctx, network, path)
	if errors.Is(err, unix.EADDRINUSE) && removeStale(path) {
		l, err = lc.Listen(ctx, network, path)
	}
	if err != nil {
		return nil, err
	}
	// The umask may have removed too many permissions.
	if err := os.Chmod(path, socketMode); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// OwnerOrRoot decides who may connect: this process's own user and root. A
// process in the child's user namespace appears here with the uid to which its
// own is mapped: its root is this process's user, and other users are subordinate
// ids.
func OwnerOrRoot(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }

// PeerUID returns the effective uid that the peer had when it connected
// (SO_PEERCRED, unix(7)).
func PeerUID(conn net.Conn) (uint32, error) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return 0, fmt.Errorf("%T is not a socket", conn)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	ctlErr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if ctlErr != nil {
		return 0, ctlErr
	}
	if err != nil {
		return 0, os.NewSyscallError("getsockopt", err)
	}
	return cred.Uid, nil
}
