// Command rootlesskit-docker-proxy stands in for docker-proxy in a rootless
// dockerd up to version 27, which does not speak RootlessKit's API itself.
//
// dockerd lives inside the namespace, so a docker-proxy that listens there
// serves nobody outside. This program first publishes the port on the host, to
// the same port of the namespace, then lets the real docker-proxy forward from
// there to the container:
//
//	client -> HOSTIP:HOSTPORT of the host               (RootlessKit's port driver)
//	       -> 127.0.0.1:HOSTPORT of the namespace       (docker-proxy)
//	       -> CONTAINERIP:CONTAINERPORT
//
// dockerd reads from descriptor 3 what became of it, up to its end: "0\n", which
// docker-proxy writes, or "1\n" and an error. SIGINT ends both.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"runtime"

	"golang.org/x/sys/unix"
)

// statusFD is the descriptor on which dockerd waits.
const statusFD = 3

func main() {
	// docker-proxy gets the signal of our death when the thread that started it
	// ends (PR_SET_PDEATHSIG), so that thread must stay.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	status := inheritedStatus()
	err := run(ctx, os.Args[1:], status)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return
	}
	if status != nil {
		fmt.Fprintf(status, "1\n%v", err) // fails where docker-proxy has answered: closed then
	}
	log.Fatal(err)
}

// inheritedStatus returns the status descriptor, or nil where there is none.
// What is inherited is not close-on-exec; the Go runtime's own descriptors,
// which may have taken the number, are.
func inheritedStatus() *os.File {
	flags, err := unix.FcntlInt(statusFD, unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC != 0 {
		return nil
	}
	return os.NewFile(statusFD, "status")
}
