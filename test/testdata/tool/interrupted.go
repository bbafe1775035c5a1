package main

import (
	"net"
	"net/http"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// interrupted serves at an address that it binds while signals come, and that it has
// bound and left a few times before.
func interrupted(addr string) error {
	for range 20 {
		l, err := listenInterrupted(addr)
		if err != nil {
			return err
		}
		_ = l.Close()
	}
	l, err := listenInterrupted(addr)
	if err != nil {
		return err
	}
	return http.Serve(l, http.HandlerFunc(handle))
}

// listenInterrupted listens while signals come as Go's own do when a goroutine is to be
// preempted: the kernel restarts what they interrupt. Each comes a little later than the
// one before, so that together they meet every step that is taken for a bind, which has
// the time that it needs in the end.
func listenInterrupted(addr string) (net.Listener, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	bound := make(chan struct{})
	defer close(bound)
	go signals(unix.Gettid(), bound)
	return net.Listen("tcp", addr)
}

func signals(tid int, until chan struct{}) {
	for pause := time.Duration(0); ; pause += 20 * time.Microsecond {
		select {
		case <-until:
			return
		case <-time.After(pause):
			_ = unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
		}
	}
}
