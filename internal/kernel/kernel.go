// Package kernel knows which features of Linux this program uses beyond those of
// the oldest kernel that it runs on, and what it does without them. They are data
// (features.go): errors, --check and docs/kernels.md say the same about one.
package kernel

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Feature is something that not every kernel has.
type Feature struct {
	// Name is what it is called in errors and tables.
	Name string
	// Since is the first version of Linux that has it; empty where any version may,
	// or may not.
	Since string
	// Modules are the kernel's modules that bring it, where it is not built in and
	// nobody inside can load them.
	Modules string
	// Gives is what this program does with it, Without what it does else.
	Gives, Without string

	// probe tries it; nil where it cannot be tried without using it.
	probe func() error

	mu    sync.Mutex
	known bool
	err   error
}

// ErrUnknown is the answer about a feature that cannot be tried, or not here.
var ErrUnknown = errors.New("the feature cannot be tried")

// Check tries the feature: nil says that it is there. What was found is remembered,
// unless the error may pass. A feature of network namespaces is tried in that of the
// calling thread.
func (f *Feature) Check() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.probe == nil {
		return ErrUnknown
	}
	if f.known {
		return f.err
	}
	err := f.probe()
	if errors.Is(err, ErrUnknown) {
		return err
	}
	f.known = !passing(err)
	f.err = nil
	if err != nil {
		f.err = f.Lacks(err)
	}
	return f.err
}

// Lacks is the error of a kernel that has shown, by err, that it does not have the
// feature.
func (f *Feature) Lacks(err error) error {
	switch {
	case f.Since != "":
		return fmt.Errorf("the kernel has no %s (Linux %s or newer): %w", f.Name, f.Since, err)
	case f.Modules != "":
		return fmt.Errorf("the kernel has no %s (the host's root can try: modprobe -a %s): %w", f.Name, f.Modules, err)
	}
	return fmt.Errorf("the kernel has no %s: %w", f.Name, err)
}

// passing reports whether an error says nothing about the kernel: something was short.
func passing(err error) bool {
	return slices.ContainsFunc([]error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS, unix.EAGAIN, unix.EINTR},
		func(short error) bool { return errors.Is(err, short) })
}

// Missing lists the features of newer versions of Linux that this kernel does not have.
func Missing() (missing []*Feature) {
	for _, f := range All() {
		if err := f.Check(); f.Since != "" && err != nil && !errors.Is(err, ErrUnknown) {
			missing = append(missing, f)
		}
	}
	return missing
}

// Release is the kernel's, as of uname(2).
func Release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
