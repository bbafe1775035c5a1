// Package nstest gives tests real namespaces. A package that needs them has
//
//	func TestMain(m *testing.M) { nstest.Main(m, ...) }
//
// Main runs the tests as an ordinary user (as root, it switches to the test
// user, whom it creates if missing), serves as the child process inside the
// namespaces, and fails a run that leaves file descriptors open.
package nstest

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/netns"
	"rootlesskit/internal/wire"
)

// ChildHandlers make the handlers that a driver runs inside the child.
type ChildHandlers = func(context.Context, *netns.Namespace) wire.Handlers

// childEnv holds the number of the wire's descriptor in the child.
const childEnv = "NSTEST_CHILD"

// Main is a package's TestMain. handlers are the handlers of its children, in
// addition to netns's own.
func Main(m *testing.M, handlers ...ChildHandlers) {
	if fd := os.Getenv(childEnv); fd != "" {
		os.Exit(childMain(fd, handlers))
	}
	if os.Geteuid() == 0 && !fuzzing() {
		exit(runAsTestUser())
	}
	startPoller()
	before := OpenFDs()
	code := m.Run()
	if leaked := LeakedFDs(before); code == 0 && len(leaked) > 0 {
		fmt.Fprintf(os.Stderr, "file descriptors left open by the tests: %v\n", leaked)
		code = 1
	}
	exit(code)
}

// startPoller makes Go's runtime open its epoll descriptors now, so that they
// are not taken for a leak.
func startPoller() {
	r, w, err := os.Pipe()
	if err != nil {
		return
	}
	r.Close()
	w.Close()
}

func childMain(fd string, handlers []ChildHandlers) int {
	if err := serveChild(fd, handlers); err != nil {
		fmt.Fprintf(os.Stderr, "nstest child: %v\n", err)
		return 1
	}
	return 0
}

func serveChild(fdArg string, handlers []ChildHandlers) error {
	fd, err := strconv.Atoi(fdArg)
	if err != nil {
		return fmt.Errorf("%s=%q: %w", childEnv, fdArg, err)
	}
	unix.CloseOnExec(fd)
	conn, err := wire.NewConn(fd)
	if err != nil {
		return err
	}
	ns := netns.Own()
	if err := ns.LoopbackUp(); err != nil {
		return err
	}
	all := ns.Handlers()
	add := func(more wire.Handlers) {
		for name, h := range more {
			all[name] = h
		}
	}
	add(testHandlers(ns))
	ctx := context.Background()
	for _, h := range handlers {
		add(h(ctx, ns))
	}
	// The end of the test process shows as an end of file.
	_ = wire.Serve(ctx, conn, all)
	return nil
}
