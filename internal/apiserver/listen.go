package apiserver

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxSocketPath is the longest path of a Unix socket: sun_path is 108 bytes
// with its terminating zero (unix(7)).
const maxSocketPath = 107

// socketMode keeps everybody else out: connecting needs write permission on
// the socket (unix(7)).
const socketMode = 0o600

// Listen binds the API's socket at an absolute path where nothing must be yet.
// Closing the listener removes it.
//
// The socket has mode 0600 from its first moment, also in a directory that
// others can enter: bind(2) takes the mode from the socket's own inode, less
// the umask, so it is set there before. (umask(2) would do as well, but it is
// the process's, and others make files at the same time.)
func Listen(ctx context.Context, path string) (net.Listener, error) {
	if !filepath.IsAbs(path) { // "@name" would be an abstract socket, which has no mode
		return nil, fmt.Errorf("the socket path %q is not absolute", path)
	}
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("the socket path %q is longer than the %d bytes that the kernel allows: choose a shorter state directory", path, maxSocketPath)
	}
	var lc net.ListenConfig
	lc.Control = func(_, _ string, conn syscall.RawConn) (err error) {
		if e := conn.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), socketMode) }); e != nil {
			return e
		}
		return err
	}
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	// A umask may have taken too much away.
	if err := os.Chmod(path, socketMode); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}
