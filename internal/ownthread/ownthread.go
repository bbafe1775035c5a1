// Package ownthread runs what changes its thread: the network namespace, the table of
// descriptors.
package ownthread

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Run runs f on a thread that ends with it, and waits for it. f must not start
// goroutines that rely on the thread.
//
// The thread is never the main one: the runtime parks that for good in place of ending
// it, so what f has changed would stay, and /proc/self shows it as the process's. A
// table of descriptors, for example, would keep connections open that the process
// has closed.
func Run(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			f() // never unlocked: the thread ends with the goroutine
			return
		}
		defer runtime.UnlockOSThread()
		Run(f) // by another thread, as this one is taken
	}()
	<-done
}
