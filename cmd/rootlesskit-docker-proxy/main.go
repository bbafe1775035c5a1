// Command rootlesskit-docker-proxy replaces docker-proxy in a rootless dockerd
// up to version 27, which does not use RootlessKit's API itself.
//
// dockerd runs inside the namespace, so a docker-proxy that listens there
// serves no one outside. This program first publishes the port of the host,
// which leads to the same port of the namespace, and then starts the real
// docker-proxy, which forwards from there to the container:
//
//	client -> HOSTIP:HOSTPORT of the host               (RootlessKit's port driver)
//	       -> 127.0.0.1:HOSTPORT of the namespace       (docker-proxy)
//	       -> CONTAINERIP:CONTAINERPORT
//
// dockerd reads the result from descriptor 3, up to end of file: "0\n", which
// docker-proxy writes, or "1\n" and an error. SIGINT ends both programs.
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

// statusFD is the descriptor that dockerd reads.
const statusFD = 3

func main() {
	// docker-proxy gets its parent-death signal (PR_SET_PDEATHSIG) when the thread
	// that started it ends, so that thread must stay.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	status := inheritedStatus()
	err := run(ctx, os.Args[1:], status)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return
	}
	if status != nil {
		fmt.Fprintf(status, "1\n%v", err) // fails if docker-proxy has answered, since status is closed then
	}
	log.Fatal(err)
}

// inheritedStatus returns the status descriptor, or nil if there is none.
// Inherited descriptors are not close-on-exec; the Go runtime's own, which may
// have taken the number, are.
func inheritedStatus() *os.File {
	flags, err := unix.FcntlInt(statusFD, unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC != 0 {
		return nil
	}
	return os.NewFile(statusFD, "status")
}
