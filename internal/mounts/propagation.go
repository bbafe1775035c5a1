// Package mounts arranges the child's mount namespace: propagation, copy-up,
// /sys and /proc, and the files in /etc that the network needs.
package mounts

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

var propagations = map[string]uintptr{
	"private":  unix.MS_PRIVATE,
	"rprivate": unix.MS_REC | unix.MS_PRIVATE,
	"shared":   unix.MS_SHARED,
	"rshared":  unix.MS_REC | unix.MS_SHARED,
	"slave":    unix.MS_SLAVE,
	"rslave":   unix.MS_REC | unix.MS_SLAVE,
}

// KnownPropagation reports whether SetPropagation knows the name.
func KnownPropagation(name string) bool {
	_, ok := propagations[name]
	return ok
}

// IsShared reports whether a propagation forbids copy-up, because a shared
// mount would propagate it to the host.
func IsShared(name string) bool { return strings.HasSuffix(name, "shared") }

// SetPropagation sets the propagation of the root mount
// (mount_namespaces(7)).
func SetPropagation(name string) error {
	flags, ok := propagations[name]
	if !ok {
		return fmt.Errorf("unknown propagation %q", name)
	}
	if err := unix.Mount("none", "/", "", flags, ""); err != nil {
		return fmt.Errorf("setting the propagation of / to %s: %w", name, err)
	}
	return nil
}
