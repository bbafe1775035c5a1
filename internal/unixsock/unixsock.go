// Package unixsock opens Unix sockets to listen on, for their owner and root
// only.
//
// bind(2) makes a socket's file, and until listen(2), connecting to it is refused: a
// client that waited for the file would conclude that nobody listens there, and
// another listener that the socket is stale. So a socket is bound to a name that
// nobody looks for, and linked to its own once it can be connected to.
package unixsock

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
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
	dir, err := openDir(filepath.Dir(path))
	if err != nil {
		return nil, failed("unix", path, err)
	}
	return listen(ctx, "unix", dir, path)
}

// ListenIn is like Listen, in an open directory, whatever its path leads to
// now; clients get the path.
func ListenIn(ctx context.Context, dir *os.File, path string) (net.Listener, error) {
	if err := checkLength(path); err != nil {
		return nil, err
	}
	return listenIn(ctx, "unix", dir, path)
}

// ListenPackets is like Listen, for a SOCK_SEQPACKET socket with a name in a
// directory. Its path may be longer than the kernel allows: clients can reach it
// through a descriptor of the directory, as this package does.
func ListenPackets(ctx context.Context, dir *os.File, name string) (net.Listener, error) {
	return listenIn(ctx, "unixpacket", dir, filepath.Join(dir.Name(), name))
}

func listenIn(ctx context.Context, network string, dir *os.File, path string) (net.Listener, error) {
	own, err := openDir(inDir(dir, "."))
	if err != nil {
		return nil, failed(network, path, err)
	}
	return listen(ctx, network, own, path)
}

func openDir(path string) (*os.File, error) {
	return os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY, 0)
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

// listener owns the directory of its socket.
type listener struct {
	*net.UnixListener
	dir   *os.File
	name  string
	close func() error // once, though several may close a listener
}

// listen takes over dir; path is the socket's, for messages.
func listen(ctx context.Context, network string, dir *os.File, path string) (net.Listener, error) {
	name := filepath.Base(path)
	ul, err := listenAt(ctx, network, dir, name)
	if err != nil {
		dir.Close()
		return nil, failed(network, path, err)
	}
	l := &listener{UnixListener: ul, dir: dir, name: name}
	l.close = sync.OnceValue(l.end)
	return l, nil
}

// failed is what a bind to the path that clients know would have said.
func failed(network, path string, err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		err = os.NewSyscallError("bind", errno)
	}
	return &net.OpError{Op: "listen", Net: network, Addr: &net.UnixAddr{Name: path, Net: network}, Err: err}
}

// listenAt makes a socket that appears under its name when it can be connected to.
func listenAt(ctx context.Context, network string, dir *os.File, name string) (*net.UnixListener, error) {
	hidden := inDir(dir, ".listen-"+rand.Text())
	defer unix.Unlink(hidden)
	l, err := listenHidden(ctx, network, hidden)
	if err != nil {
		return nil, err
	}
	// The umask may have removed too many permissions.
	if err = os.Chmod(hidden, socketMode); err == nil {
		err = appear(hidden, inDir(dir, name))
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func listenHidden(ctx context.Context, network, path string) (*net.UnixListener, error) {
	var lc net.ListenConfig
	lc.Control = func(_, _ string, conn syscall.RawConn) (err error) {
		if e := conn.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), socketMode) }); e != nil {
			return e
		}
		return err
	}
	l, err := lc.Listen(ctx, network, path)
	if err != nil {
		return nil, err
	}
	ul := l.(*net.UnixListener)
	ul.SetUnlinkOnClose(false)
	return ul, nil
}

// appear gives a socket its name, which a stale one may have.
func appear(hidden, path string) error {
	err := unix.Link(hidden, path)
	if err == unix.EEXIST && removeStale(path) {
		err = unix.Link(hidden, path)
	}
	if err == unix.EEXIST {
		err = unix.EADDRINUSE // as bind(2) says it
	}
	return os.NewSyscallError("bind", err)
}

// Close removes the socket, and ends the listener.
func (l *listener) Close() error { return l.close() }

func (l *listener) end() error {
	_ = unix.Unlinkat(int(l.dir.Fd()), l.name, 0)
	return errors.Join(l.UnixListener.Close(), l.dir.Close())
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
