package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// descriptors returns the descriptors that Podman has left open: one for
// reporting that the ports are open, and one that shows the container's end.
func (c *config) descriptors() (ready, ended *os.File, err error) {
	if c.ReadyFD == c.ExitFD {
		return nil, nil, fmt.Errorf("ReadyFD and ExitFD are both %d", c.ReadyFD)
	}
	if ready, err = inherited("ReadyFD", c.ReadyFD); err != nil {
		return nil, nil, err
	}
	if ended, err = inherited("ExitFD", c.ExitFD); err != nil {
		return nil, nil, err
	}
	return ready, ended, nil
}

// inherited takes over a descriptor. Inherited descriptors are not close-on-exec;
// the Go runtime's own, which may have taken the number, are.
func inherited(name string, fd int) (*os.File, error) {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if fd <= unix.Stderr || err != nil || flags&unix.FD_CLOEXEC != 0 {
		return nil, fmt.Errorf("%s: the descriptor %d was not inherited", name, fd)
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name), nil
}

// tellReady tells Podman that it may continue. From then on, no one reads this
// program's output.
func tellReady(ready *os.File) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	if _, err := ready.WriteString("1"); err != nil {
		return fmt.Errorf("reporting that the ports are open: %w", err)
	}
	for _, fd := range []int{unix.Stdout, unix.Stderr} {
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	return ready.Close()
}

// awaitEnd waits for the end of file that the container leaves, or for ctx.
func awaitEnd(ctx context.Context, ended *os.File) {
	eof := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, ended)
		close(eof)
	}()
	select {
	case <-eof:
	case <-ctx.Done():
	}
}
