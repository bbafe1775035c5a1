package mounts

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// held is a mount that can be bound elsewhere after its own path was covered:
// /proc/self/fd/N leads to what a descriptor (O_PATH) was opened on. It must be
// the root of a mount; a recursive bind from inside a mount would include the
// cover.
type held struct{ fd int }

// hold opens a path without following a symlink at its end.
func hold(path string) (held, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return held{}, fmt.Errorf("opening %s: %w", path, err)
	}
	return held{fd}, nil
}

func (h held) close() { unix.Close(h.fd) }

// bindTo mounts the held mount, with everything below it, at a path.
func (h held) bindTo(target string) error {
	source := fmt.Sprintf("/proc/self/fd/%d", h.fd)
	if err := unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind mount at %s: %w", target, err)
	}
	return nil
}

// cover moves a mount over the held one.
func (h held) cover(source string) error {
	return unix.Mount(source, fmt.Sprintf("/proc/self/fd/%d", h.fd), "", unix.MS_MOVE, "")
}

// Bind mounts source, with everything below it, at target.
func Bind(source, target string) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind mount of %s at %s: %w", source, target, err)
	}
	return nil
}
