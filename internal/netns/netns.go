// Package netns does the work inside a network namespace: sockets, TAP devices,
// addresses and routes. Its handlers run in the child; the parent calls them
// through the typed functions.
package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/ownthread"
)

// Namespace is a network namespace to work in: the process's own, or another
// one (--detach-netns) that is entered for each task.
type Namespace struct {
	file   *os.File // nil: the process's own
	runner func(*exec.Cmd) error
}

// Own returns the network namespace of the process.
func Own() *Namespace { return &Namespace{} }

// Open returns the network namespace at a path.
func Open(path string) (*Namespace, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening the network namespace: %w", err)
	}
	return &Namespace{file: f}, nil
}

// Of runs f with the network namespace of a process; 0 means n itself.
func (n *Namespace) Of(pid int, f func(*Namespace) error) error {
	if pid == 0 {
		return f(n)
	}
	ns, err := Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	return f(ns)
}

// Close releases the namespace.
func (n *Namespace) Close() error {
	if n.file == nil {
		return nil
	}
	return n.file.Close()
}

// Do runs f inside the namespace and waits for it. Sockets that f makes belong
// to the namespace, whoever uses them later. f must not start goroutines that
// rely on the namespace.
func (n *Namespace) Do(f func() error) error {
	if n.file == nil {
		return f()
	}
	var err error
	ownthread.Run(func() {
		if err = n.enter(); err != nil {
			err = fmt.Errorf("entering the network namespace: %w", err)
			return
		}
		err = f()
	})
	return err
}

// enter moves the calling thread into the namespace, while Close waits.
func (n *Namespace) enter() error {
	conn, err := n.file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) { failed = unix.Setns(int(fd), unix.CLONE_NEWNET) })
	return errors.Join(err, failed)
}

// Create makes a network namespace and binds it to an existing file.
func Create(path string) (*Namespace, error) {
	var err error
	ownthread.Run(func() {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("making a network namespace: %w", err)
			return
		}
		if err = unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			err = fmt.Errorf("binding the network namespace to %s: %w", path, err)
		}
	})
	if err != nil {
		return nil, err
	}
	return Open(path)
}

// SetRunner makes Run execute programs with run instead of (*exec.Cmd).Run, for
// a process that reaps orphans.
func (n *Namespace) SetRunner(run func(*exec.Cmd) error) { n.runner = run }

// Run executes a program inside the namespace and waits for it.
func (n *Namespace) Run(cmd *exec.Cmd) error {
	run := n.runner
	if run == nil {
		run = (*exec.Cmd).Run
	}
	return n.Do(func() error { return run(cmd) })
}
